"""llama.cpp inside a child process: log, model and context, for the programs that run there."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

from ggufext.audit.ggml import Ggml

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Settings that go by name here and by number in C: how llama-cpp-python names the numbers.
_ENUMERATORS = {
    "type_k": "GGML_TYPE_",
    "type_v": "GGML_TYPE_",
    "rope_scaling_type": "LLAMA_ROPE_SCALING_TYPE_",
}

_LOG_DEBUG, _LOG_ERROR, _LOG_CONTINUED = 1, 4, 5


class RefusalError(Exception):
    """A refusal with a code, to be raised as EngineError by the parent."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class _Log:
    """llama.cpp's log, passed on to standard error line by line so that it survives a crash."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self._level = _LOG_DEBUG

    def __call__(self, level: int, text: bytes, _: Any) -> None:
        self._level = self._level if level == _LOG_CONTINUED else level
        if self._level == _LOG_DEBUG:
            return
        line = text.decode(errors="replace")
        if self._level == _LOG_ERROR:
            self.errors.append(line.strip())
        sys.stderr.write(line)
        sys.stderr.flush()


class Llama:
    """The library, started once a process.

    Attributes
    ----------
    api : module
        llama-cpp-python's low-level module.
    ggml : Ggml
        The ggml that it has loaded.
    """

    def __init__(self) -> None:
        try:
            import llama_cpp
        except ImportError as error:
            raise RefusalError(
                "engine_missing",
                f"llama-cpp-python cannot be imported ({error}): pip install 'ggufext[check]'",
            ) from error
        self.api: Any = llama_cpp
        self._log = _Log()
        # ctypes does not keep the callback alive; this object does.
        self._log_callback = llama_cpp.llama_log_callback(self._log)
        llama_cpp.llama_log_set(self._log_callback, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self.ggml = Ggml(llama_cpp.llama_cpp._lib)

    def load(
        self,
        path: str,
        kv_overrides: Mapping[str, bool | int | float | str],
        *,
        gpu_layers: int = 0,
        vocabulary_only: bool = False,
    ) -> Any:
        """Load a model.

        Raises
        ------
        RefusalError
            ``model_not_loaded`` with llama.cpp's own words.
        """
        parameters = self.api.llama_model_default_params()
        parameters.n_gpu_layers = gpu_layers
        parameters.vocab_only = vocabulary_only
        # Weights laid out for AMX crash when GCC 12 built llama.cpp; other layouts only help.
        parameters.use_extra_bufts = b"AMX_INT8 = 1" not in self.api.llama_print_system_info()
        parameters.kv_overrides = self._overrides(kv_overrides)
        self._log.errors.clear()
        model = self.api.llama_model_load_from_file(os.fsencode(path), parameters)
        if not model:
            raise RefusalError("model_not_loaded", self.errors())
        return model

    def _overrides(self, overrides: Mapping[str, bool | int | float | str]) -> Any:
        """llama.cpp's array of overrides, ended by an empty key."""
        api = self.api
        array = (api.llama_model_kv_override * (len(overrides) + 1))()
        for entry, (key, value) in zip(array, overrides.items(), strict=False):
            entry.key = key.encode()
            if isinstance(value, bool):
                entry.tag, entry.value.val_bool = api.LLAMA_KV_OVERRIDE_TYPE_BOOL, value
            elif isinstance(value, int):
                entry.tag, entry.value.val_i64 = api.LLAMA_KV_OVERRIDE_TYPE_INT, value
            elif isinstance(value, float):
                entry.tag, entry.value.val_f64 = api.LLAMA_KV_OVERRIDE_TYPE_FLOAT, value
            else:
                entry.tag, entry.value.val_str = api.LLAMA_KV_OVERRIDE_TYPE_STR, value.encode()
        return array

    def context(self, model: Any, settings: Mapping[str, Any]) -> Any:
        """Create a context: llama.cpp's defaults, one thread, and what `settings` names.

        Raises
        ------
        RefusalError
            ``context_not_created`` with llama.cpp's own words.
        """
        parameters = self.api.llama_context_default_params()
        parameters.n_threads = parameters.n_threads_batch = 1
        for name, value in settings.items():
            setattr(parameters, name, self._number(name, value))
        self._log.errors.clear()
        context = self.api.llama_init_from_model(model, parameters)
        if not context:
            raise RefusalError("context_not_created", self.errors())
        return context

    def _number(self, setting: str, value: Any) -> Any:
        """Translate a setting to what the C structure holds."""
        prefix = _ENUMERATORS.get(setting)
        if prefix is None:
            return value
        number = getattr(self.api, prefix + value.upper(), None)
        if number is None:
            raise RefusalError("unknown_setting", f"llama.cpp knows no {setting} {value!r}")
        return number

    def errors(self) -> str:
        """What llama.cpp's log complained about while it made the last model or context."""
        return "; ".join(self._log.errors) or "llama.cpp gives no reason"


def private_output() -> BinaryIO:
    """Standard output for replies only: what libraries print goes to standard error."""
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return stream


def forbid_core_dump() -> None:
    """A crash is expected and reported; nobody wants gigabytes of it on disk."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
