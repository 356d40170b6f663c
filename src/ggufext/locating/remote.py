"""The header of a file on another machine, through as few and as short reads as possible."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from ggufext.errors import GgufextError, HeaderError, LocationError, shown
from ggufext.header.frequencies import MOST_PAIRS, factor_tensors
from ggufext.header.header import parse_header
from ggufext.header.shards import shard_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from ggufext.header.header import Header, TensorInfo


#: Ends of the ranges that are asked for, bytes. Metadata of the model comes first in a file, a
#: vocabulary of 128k tokens takes 8 MB, one of 262k tokens 16 MB.
_ENDS = (2 << 20, 32 << 20, 256 << 20)

#: Requests after which a server that sends small parts is left alone.
_MOST_REQUESTS = 32

#: Bytes of one read, and bytes after which the header is tried first.
_PIECE, _FIRST_TRY = 1 << 16, 1 << 18

#: Largest factor tensor that is asked for, bytes: 32-bit numbers.
_LARGEST_TENSOR = 4 * MOST_PAIRS

#: Seconds without an answer or without a byte.
_PATIENCE = 30.0

_LENGTH = re.compile(r"\d{1,18}")
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A header that was read from another machine.

    Attributes
    ----------
    name : str
        As it was asked for, without a password.
    header : Header
    front : bytes
        The file's first `header.data_offset` bytes.
    requests : int
        Requests for the file that it took.
    tensors : mapping of str to bytes, or None
        The frequency-factor tensors by name; None where the server knows no ranges.
    """

    name: str
    header: Header
    front: bytes
    requests: int
    tensors: Mapping[str, bytes] | None


class _Answer(NamedTuple):
    """What the head of an answer promises.

    `end` is where its bytes stop in the file; `validators` change with the file.
    """

    ranged: bool
    end: int
    file_size: int
    validators: tuple[str | None, str | None]


def read_remote(
    name: str,
    *,
    progress: Callable[[int], None] = lambda _read: None,
    patience: float = _PATIENCE,
) -> RemoteModel:
    """Read and check the header of a remote GGUF file, and its frequency factors.

    Nothing else of its weights is asked for.

    A server that knows no ranges is read from the front, and the connection closed behind the
    header.

    Parameters
    ----------
    name : str
        ``http://``, ``https://`` or ``hf://owner/repo/file.gguf``.
    progress : callable
        Called with the bytes read so far.
    patience : float
        Seconds without an answer or without a byte after which it is given up.

    Raises
    ------
    LocationError
        ``remote_missing``, ``remote_refused``, ``remote_unreachable``, ``remote_failed``,
        ``remote_unusable``, ``extra_missing`` and what `_hub_address` raises.
    HeaderError
        The file is not a GGUF file that llama.cpp would read.
    """
    from importlib.util import find_spec

    if find_spec("fsspec") is None or find_spec("aiohttp") is None:
        raise _error(name, "extra_missing", "needs fsspec with http: pip install 'ggufext[remote]'")
    with _named_errors(name):
        if name.lower().startswith("hf://"):
            url, headers = _hub_address(name)
        else:
            url, headers = direct_address(name), {}
        return _RemoteFront(name, url, headers, progress, patience).read()


class _RemoteFront:
    """The growing front of one remote file."""

    def __init__(
        self,
        name: str,
        url: str,
        headers: Mapping[str, str],
        progress: Callable[[int], None],
        patience: float,
    ) -> None:
        import aiohttp
        from fsspec.implementations.http import HTTPFileSystem

        self.name = name
        self.url = url
        self.headers = headers
        self.progress = progress
        self.front = bytearray()
        self.next_try = _FIRST_TRY
        self.requests = 0
        limits = aiohttp.ClientTimeout(total=None, sock_connect=patience, sock_read=patience)
        self.files = HTTPFileSystem(
            skip_instance_cache=True,
            use_listings_cache=False,
            # Proxies and logins of the environment, as other programs use them.
            client_kwargs={"timeout": limits, "trust_env": True},
        )

    def read(self) -> RemoteModel:
        first: _Answer | None = None
        while self.requests < _MOST_REQUESTS and len(self.front) < _ENDS[-1]:
            end = next(end for end in _ENDS if end > len(self.front))
            header, answer = self._request(end, first)
            if header is not None:
                front = bytes(self.front[: header.data_offset])
                tensors = self._factor_tensors(header, answer) if answer.ranged else None
                return RemoteModel(shown(self.name), header, front, self.requests, tensors)
            first = first or answer
        raise _error(
            self.name,
            "remote_unusable",
            f"its header takes more than {len(self.front):,} bytes in {self.requests} requests, "
            "more than any model needs; download the file if it is right",
        )

    def _request(self, end: int, first: _Answer | None) -> tuple[Header | None, _Answer]:
        """Ask for the bytes from here to `end`, and stop as soon as the header is complete."""
        start = len(self.front)
        stream = self._open(start, end)
        try:
            answer = self._answer(stream.r.status, stream.r.headers, start, end)
            if first is not None:
                self._check_same(first, answer)
            while len(self.front) < answer.end:
                piece = stream.read(min(_PIECE, answer.end - len(self.front)))
                if not piece:
                    raise _error(
                        self.name,
                        "remote_failed",
                        f"the connection ended after {len(self.front):,} of {answer.end:,} bytes "
                        "that the server promised; try again",
                    )
                self.front += piece
                self.progress(len(self.front))
                if len(self.front) >= min(self.next_try, answer.end):
                    header = self._parsed(answer.file_size)
                    if header is not None:
                        return header, answer
                    self.next_try = len(self.front) * 5 // 4
            return None, answer
        finally:
            stream.close()

    def _open(self, start: int, end: int) -> Any:
        self.requests += 1
        # A size is given so that fsspec does not ask for it, block size 0 for one plain stream.
        return self.files.open(
            self.url,
            size=1,
            block_size=0,
            headers={
                **self.headers,
                "Range": f"bytes={start}-{end - 1}",
                "Accept-Encoding": "identity",
            },
        )

    def _factor_tensors(self, header: Header, first: _Answer) -> dict[str, bytes]:
        return {
            tensor.name: self._tensor(header, first, tensor)
            for tensor in factor_tensors(header)
            if tensor.size <= _LARGEST_TENSOR  # a larger one is refused where it is understood
        }

    def _tensor(self, header: Header, first: _Answer, tensor: TensorInfo) -> bytes:
        """The bytes of a small tensor, by a request of its own."""
        start = header.data_offset + tensor.offset
        end = start + tensor.size
        stream = self._open(start, end)
        try:
            answer = self._answer(stream.r.status, stream.r.headers, start, end)
            self._check_same(first, answer)
            content = bytearray()
            while len(content) < tensor.size:
                piece = stream.read(tensor.size - len(content))
                if not piece:
                    raise _error(
                        self.name,
                        "remote_failed",
                        f"the connection ended within {tensor.name}; try again",
                    )
                content += piece
            return bytes(content)
        finally:
            stream.close()

    def _answer(self, status: int, headers: Any, start: int, end: int) -> _Answer:
        encoding = headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise self._inconsistent(
                f"the server sends the file as {encoding}, so its bytes cannot be counted"
            )
        validators = (headers.get("ETag"), headers.get("Last-Modified"))
        if status == 206:
            told = str(headers.get("Content-Range", ""))
            match = _CONTENT_RANGE.fullmatch(told)
            if match is None:
                raise self._inconsistent(f"the server calls its part of the file {told!r}")
            first, last, size = (int(number) for number in match.groups())
            # A server may send less than was asked for, but not nothing and not another part.
            if first != start or not first <= last < min(end, size):
                raise self._inconsistent(
                    f"bytes {start:,} to {end - 1:,} were asked for, and the server sends {told!r}"
                )
            return _Answer(True, last + 1, size, validators)
        length = headers.get("Content-Length")
        if status != 200 or (length is not None and not _LENGTH.fullmatch(str(length))):
            raise _error(
                self.name, "remote_failed", f"the server answered {status}; expected 200 or 206"
            )
        if length is None:
            raise _error(
                self.name,
                "remote_unusable",
                "the server knows neither ranges nor the length of the file; download it first",
            )
        return _Answer(False, min(int(length), _ENDS[-1]), int(length), validators)

    def _check_same(self, first: _Answer, now: _Answer) -> None:
        if first.validators != now.validators or first.file_size != now.file_size:
            raise _error(
                self.name,
                "remote_unusable",
                "the file changed between two requests; try again when nothing writes to it",
            )
        if first.ranged != now.ranged:
            raise self._inconsistent("the server answered one range and then ignored another")

    def _parsed(self, file_size: int) -> Header | None:
        """The header, None while more of it is needed."""
        try:
            header = parse_header(bytes(self.front), file_size=file_size)
        except HeaderError as error:
            if error.code == "front_too_short":
                return None
            raise
        # The padding in front of the data belongs to what the hash of an undo record covers.
        return header if len(self.front) >= min(header.data_offset, file_size) else None

    def _inconsistent(self, what: str) -> LocationError:
        return _error(
            self.name, "remote_unusable", f"{what}; download the file, or ask another server"
        )


@contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Errors of the network as ours, and every error with the name of the file."""
    try:
        yield
    except GgufextError as error:
        error.path = error.path or shown(name)
        raise
    except Exception as error:
        ours = _as_error(name, error)
        if ours is None:
            raise
        raise ours from error


def _as_error(name: str, error: Exception) -> LocationError | None:
    import asyncio

    import aiohttp

    if isinstance(error, aiohttp.ClientResponseError):
        return _refusal(name, error.status)
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    said: tuple[tuple[tuple[type[Exception], ...], str, str], ...] = (
        (
            (FileNotFoundError,),
            "remote_missing",
            "the server answered 404: there is no such file",
        ),
        (
            (asyncio.TimeoutError, TimeoutError),
            "remote_failed",
            "the server does not answer; try again, or download the file",
        ),
        (
            (aiohttp.ClientPayloadError,),
            "remote_failed",
            f"the connection ended before the promised bytes ({what}); try again",
        ),
        (
            (aiohttp.InvalidURL, ValueError),
            "remote_name",
            f"is no address that can be read ({what})",
        ),
        (
            (aiohttp.ClientError, OSError),
            "remote_unreachable",
            f"the server cannot be reached ({what}); check the address and the network",
        ),
    )
    for kinds, code, message in said:
        if isinstance(error, kinds):
            return _error(name, code, message)
    return None


def _refusal(name: str, status: int) -> LocationError:
    if status in {401, 403}:
        return _error(
            name,
            "remote_refused",
            f"the server answered {status}: the file is not open to you; on the Hugging Face Hub "
            "accept the model's terms and set HF_TOKEN",
        )
    return _error(name, "remote_failed", f"the server answered {status}; try again later")


def _error(name: str, code: str, message: str) -> LocationError:
    return LocationError(code=code, path=shown(name), message=message)


_NAME = re.compile(
    r"hf://(?:models/)?(?P<repository>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>[^/]+))?(?:/(?P<file>.+))?",
    re.IGNORECASE,
)

#: Seconds without an answer after which the hub is given up.


#: File names shown where one has to be chosen.
_SHOWN_FILES = 8


def _hub_address(name: str) -> tuple[str, dict[str, str]]:
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
        raise _hub_refusal(name, error.response.status_code) from error
    except OSError as error:
        raise _unreachable(name, error) from error
    except Exception as error:  # httpx or requests, as the version of huggingface_hub has it
        if type(error).__module__.partition(".")[0] not in {"httpx", "httpx2", "requests"}:
            raise
        raise _unreachable(name, error) from error


def _hub_refusal(name: str, status: int) -> LocationError:
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
