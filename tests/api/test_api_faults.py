"""Faults keep their kind on their way through HTTP."""

from __future__ import annotations

import pytest

from meshslm.api.faults import HTTP_FAULTS, ErrorBody, envelope, fault_of
from meshslm.errors import FaultCode, RequestFault


def test_every_kind_has_a_row_and_a_word_of_its_own() -> None:
    assert set(HTTP_FAULTS) == set(FaultCode)
    assert len({shown.code for shown in HTTP_FAULTS.values()}) == len(FaultCode)


@pytest.mark.parametrize("code", list(FaultCode))
def test_there_and_back(code: FaultCode) -> None:
    fault = RequestFault(code, "the detail", param="n", retry_after_ms=250)
    back = fault_of(HTTP_FAULTS[code].status, envelope(fault).error, retry_after_ms=250)
    assert (back.code, back.detail, back.param, back.retry_after_ms) == (
        code,
        "the detail",
        "n",
        250,
    )


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, FaultCode.BAD_REQUEST),
        (404, FaultCode.BAD_REQUEST),
        (413, FaultCode.BAD_REQUEST),
        (429, FaultCode.OVERLOADED),
        (500, FaultCode.INTERNAL),
        (502, FaultCode.INTERNAL),
        (503, FaultCode.NOT_READY),
        (504, FaultCode.DEADLINE),
    ],
)
def test_unknown_words_are_read_by_their_status(status: int, code: FaultCode) -> None:
    error = ErrorBody(message="m", type="t", code="payload_too_large")
    assert fault_of(status, error).code is code
