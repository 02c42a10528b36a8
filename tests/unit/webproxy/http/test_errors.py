"""HttpError: the status and the text for the client, also in what is logged."""

from webproxy.http.errors import HttpError


def test_status_and_text_are_kept_and_told() -> None:
    error = HttpError(431, "too many fields")
    assert (error.status, error.text, str(error)) == (431, "too many fields", "431: too many fields")
