from __future__ import annotations

import errno

import pytest

from simplecached import errors


def test_the_text_is_built_from_the_fields() -> None:
    error = errors.StoreUnavailable("write", "/store/x", errno.ENOSPC)
    assert (error.action, error.path, error.errno) == ("write", "/store/x", errno.ENOSPC)
    assert "cannot write /store/x: No space left on device (ENOSPC); free some space" in str(error)
    assert error.hint in str(error)


def test_an_unknown_errno_still_reads() -> None:
    assert "9999" in str(errors.StoreUnavailable("write", "/x", 9999))


@pytest.mark.parametrize(
    ("translate", "kind"),
    [(errors.store_errors, errors.StoreUnavailable), (errors.startup_errors, errors.StartupError)],
)
def test_os_errors_are_translated_and_keep_their_cause(translate: object, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="/x") as caught, translate("open", "/x"):  # type: ignore[operator]
        raise OSError(errno.EROFS, "Read-only file system")
    assert isinstance(caught.value.__cause__, OSError)
    assert "remount" in str(caught.value)


def test_the_tree() -> None:
    for kind in (errors.ConfigError, errors.StartupError, errors.NotStored, errors.StoreUnavailable):
        assert issubclass(kind, errors.SimpleCachedError)
