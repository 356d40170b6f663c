"""Files on the Hugging Face Hub: from ``hf://owner/repo[@revision][/file]`` to an address."""

from __future__ import annotations

import re
from importlib.util import find_spec
from urllib.parse import unquote, urlsplit, urlunsplit

from ggufext.errors import LocationError
from ggufext.header.shards import shard_name

_NAME = re.compile(
    r"hf://(?:models/)?(?P<repository>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>[^/]+))?(?:/(?P<file>.+))?",
    re.IGNORECASE,
)

#: Seconds without an answer after which the hub is given up.
_PATIENCE = 30.0

#: File names shown where one has to be chosen.
_SHOWN_FILES = 8


def hub_address(name: str) -> tuple[str, dict[str, str]]:
    """The address of a file on the hub, and the headers with which the user may read it.

    The hub is that of HF_ENDPOINT; a token is sent where the user has logged in or set HF_TOKEN.

    Parameters
    ----------
    name : str
        ``hf://owner/repo/file.gguf``, or ``hf://owner/repo`` where it has one GGUF model;
        ``@revision`` behind the repository, a slash in it written as ``%2F``.

    Raises
    ------
    LocationError
        ``remote_name``, ``remote_several_files``, ``remote_missing``, ``remote_refused``,
        ``remote_unreachable``, ``extra_missing``.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise LocationError(
            code="remote_name",
            path=name,
            message="is no name on the Hugging Face Hub; expected hf://owner/repo/file.gguf, "
            "hf://owner/repo or hf://owner/repo@revision/file.gguf",
        )
    if find_spec("huggingface_hub") is None:
        raise LocationError(
            code="extra_missing",
            path=name,
            message="needs huggingface_hub: pip install 'ggufext[remote]'",
        )
    from huggingface_hub import constants, get_token, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        raise LocationError(
            code="remote_unreachable",
            path=name,
            message="HF_HUB_OFFLINE is set, so the hub is not asked; unset it, or name a file",
        )
    revision = unquote(match["revision"]) if match["revision"] else None
    file = match["file"] or _only_model(name, match["repository"], revision)
    token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return hf_hub_url(match["repository"], file, revision=revision), headers


def direct_address(url: str) -> str:
    """The file's own address where someone copied that of its page on the hub."""
    parts = urlsplit(url)
    if parts.hostname in {"huggingface.co", "hf.co"} and "/blob/" in parts.path:
        parts = parts._replace(path=parts.path.replace("/blob/", "/resolve/", 1))
    return urlunsplit(parts)


def _only_model(name: str, repository: str, revision: str | None) -> str:
    files = _files(name, repository, revision)
    models = [
        file
        for file in sorted(files)
        if file.lower().endswith(".gguf") and _is_model(file.rpartition("/")[2])
    ]
    if len(models) == 1:
        return models[0]
    if not models:
        raise LocationError(
            code="remote_missing",
            path=name,
            message=f"holds no GGUF file among {len(files):,} files; expected one",
        )
    more = f" and {len(models) - _SHOWN_FILES} more" if len(models) > _SHOWN_FILES else ""
    raise LocationError(
        code="remote_several_files",
        path=name,
        message=f"holds {len(models)} models; name one of them behind a slash: "
        f"{', '.join(models[:_SHOWN_FILES])}{more}",
    )


def _is_model(file_name: str) -> bool:
    """Whether a GGUF file is a model by its name: no projector and no later part of a set."""
    shard = shard_name(file_name)
    return not file_name.startswith("mmproj") and (shard is None or shard.number == 1)


def _files(name: str, repository: str, revision: str | None) -> list[str]:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        # This request is not repeated for a minute when the hub is away, as a listing would be.
        api = HfApi(library_name="ggufext")
        about = api.model_info(repository, revision=revision, timeout=_PATIENCE)
        return [file.rfilename for file in about.siblings or ()]
    except HFValidationError as error:
        raise LocationError(code="remote_name", path=name, message=str(error)) from error
    except HfHubHTTPError as error:
        raise _refusal(name, error.response.status_code) from error
    except OSError as error:
        raise _unreachable(name, error) from error
    except Exception as error:  # httpx or requests, as the version of huggingface_hub has it
        if type(error).__module__.partition(".")[0] not in {"httpx", "httpx2", "requests"}:
            raise
        raise _unreachable(name, error) from error


def _refusal(name: str, status: int) -> LocationError:
    if status in {401, 403}:
        return LocationError(
            code="remote_refused",
            path=name,
            message=f"the hub answered {status}: there is no such repository, or it is not open to "
            "you; accept its terms on its page and set HF_TOKEN",
        )
    missing = status == 404
    return LocationError(
        code="remote_missing" if missing else "remote_failed",
        path=name,
        message=f"the hub answered {status}: "
        + ("no such repository or revision" if missing else "try again later"),
    )


def _unreachable(name: str, error: Exception) -> LocationError:
    return LocationError(
        code="remote_unreachable",
        path=name,
        message=f"the hub cannot be reached ({type(error).__name__}: {error}); check the network "
        "and HF_ENDPOINT",
    )
