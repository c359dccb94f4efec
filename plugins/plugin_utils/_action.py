# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# Interfaces may change in any release, even a bugfix release.
"""What the controller halves of the modules share: options, safe surroundings, contents, calls of the target half."""

from __future__ import annotations

import abc
import base64
import functools
import gzip
import os
import tempfile
import typing as t
import zlib

from ansible import constants as C
from ansible import module_utils
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import callback_loader
from ansible.utils.vars import merge_hash

from ansible_collections.webfarm.iis.plugins.plugin_utils import _libraries, _settler

Options = dict[str, t.Any]
Result = dict[str, t.Any]

MASK = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"

# Authentication that leaves a WinRM or PSRP message readable when the connection is plain HTTP.
_WINRM_WITHOUT_ENCRYPTION = frozenset({"basic", "plaintext", "ssl", "certificate"})
_PSRP_WITHOUT_ENCRYPTION = frozenset({"basic", "certificate"})
_ENCRYPTED_TRANSPORTS = frozenset(
    {"ssh", "ansible.builtin.ssh", "paramiko", "paramiko_ssh", "ansible.builtin.paramiko_ssh"}
)
_LOCAL_TRANSPORTS = frozenset({"local", "ansible.builtin.local"})


# Callback plugins that keep or send the whole result of every task: on disk, in a database, to a log service, by mail.
# AWX and its kin are not among them: there the job's output is what the job is for, and it cannot be switched off.
RESULT_RECORDERS = frozenset(
    {
        "ara",
        "ara_default",
        "elastic",
        "foreman",
        "junit",
        "log_plays",
        "loganalytics",
        "loganalytics_ingestion",
        "logdna",
        "logentries",
        "logstash",
        "mail",
        "opentelemetry",
        "splunk",
        "sumologic",
        "syslog_json",
        "tree",
    }
)


class ActionFailure(Exception):
    """The action stops with this message; result keys that are known by then go with it."""

    def __init__(self, message: str, result: Result | None = None) -> None:
        super().__init__(message)
        self.result: Result = result or {}


def pack(content: bytes) -> str:
    """Content as it travels in a no_log argument: gzip, then base64."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode("ascii")


def unpack(text: str, what: str) -> bytes:
    """The inverse of :func:`pack`; *what* names the content in the error."""
    try:
        packed = base64.b64decode(text, validate=True)
        if not packed:
            raise EOFError("it is empty")
        return gzip.decompress(packed)
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise ActionFailure(f"The target returned {what} in a form that cannot be unpacked: {error}") from None


def write_private_file(path: str, content: bytes, option: str) -> None:
    """Write *content* in one step, readable by the owner only. The folder is made when it is missing."""
    folder = os.path.dirname(path)
    temporary = ""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".webfarm-", dir=folder)  # mkstemp: mode 0600
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        raise ActionFailure(
            f"{option}: cannot write {path}: {error.strerror}. Name a path that this user may write."
        ) from None


def masked(arguments: t.Mapping[str, t.Any], spec: t.Mapping[str, t.Any]) -> Options:
    """The arguments as they may be shown: every no_log option of *spec* masked, suboptions included."""
    shown: Options = dict(arguments)
    for name, option in spec.items():
        value = shown.get(name)
        if value is None:
            continue
        if option.get("no_log"):
            shown[name] = MASK
        elif _has_secrets(option.get("options") or {}):
            items = value if isinstance(value, list | tuple) else [value]
            if all(isinstance(item, t.Mapping) for item in items):
                parts = [masked(item, option["options"]) for item in items]
                shown[name] = parts if isinstance(value, list | tuple) else parts[0]
            else:
                shown[name] = MASK  # text that the validation takes apart
    return shown


def _has_secrets(spec: t.Mapping[str, t.Any]) -> bool:
    return any(option.get("no_log") or _has_secrets(option.get("options") or {}) for option in spec.values())


def recording_problem(
    *, cache_plugin: str, callbacks: t.Iterable[str], log_path: str | None, verbosity: int, no_log: bool
) -> str | None:
    """What would keep variables or results of this run beyond its end, and how to stop it; None when nothing does.

    Results of this collection hold no private key. But whoever hands a key over as a variable has it among the
    values that a fact cache writes to disk and that a recorder stores.
    """
    if cache_plugin.rsplit(".", 1)[-1] != "memory":
        return (
            f"facts are cached by the plugin {cache_plugin}, which keeps variables set by set_fact in clear. "
            "Run this play with ANSIBLE_CACHE_PLUGIN=memory"
        )
    if no_log:
        return None
    for name in sorted(callbacks):
        if name.rsplit(".", 1)[-1] in RESULT_RECORDERS:
            return (
                f"the callback plugin {name} records the results of tasks. Run this play without it, or set "
                "no_log: true on this task"
            )
    if log_path and verbosity:
        return (
            f"results are logged to {log_path}, because ANSIBLE_LOG_PATH is set and the run is verbose. Run without "
            "-v, or set no_log: true on this task"
        )
    return None


@functools.cache
def settler() -> str:
    """The script of the scheduled task that settles an interrupted run, packed."""
    folder = os.path.dirname(module_utils.__file__)
    with open(os.path.join(folder, "powershell", "Ansible.ModuleUtils.AddType.psm1"), encoding="utf-8") as stream:
        return pack(_settler.script(stream.read()).encode("utf-8"))


class TransactionAction(ActionBase):  # type: ignore[misc]
    """Calls a module that does everything on the target, and gives it the script of the scheduled task."""

    MODULE: t.ClassVar[str]
    DEADMAN_MINUTES = 15

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> Result:
        result: Result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if not self._task.check_mode and str(arguments.get("deadman_minutes", self.DEADMAN_MINUTES)) != "0":
            arguments["_settler"] = settler()
        wrap_async = self._task.async_val and not self._connection.has_native_async
        answer = self._execute_module(
            module_name=self.MODULE, module_args=arguments, task_vars=task_vars, wrap_async=wrap_async
        )
        merged: Result = merge_hash(result, answer)
        return merged


def active_callbacks() -> list[str]:
    """Names of the callback plugins of this run, by the rules of ansible-core's TaskQueueManager."""
    enabled = [str(name) for name in C.CALLBACKS_ENABLED or []]
    found = set(enabled)
    for plugin in callback_loader.all(class_only=True):
        name = os.path.splitext(os.path.basename(str(getattr(plugin, "_original_path", ""))))[0]
        needs = getattr(plugin, "CALLBACK_NEEDS_ENABLED", getattr(plugin, "CALLBACK_NEEDS_WHITELIST", False))
        if name and not needs and getattr(plugin, "CALLBACK_TYPE", "") != "stdout":
            found.add(name)
    return sorted(found)


def public_part(result: Result) -> Result:
    """A result without what only the two halves say to each other: `_` keys and sealed parts."""
    public = {name: value for name, value in result.items() if not name.startswith("_") or name.startswith("_ansible_")}
    for item in public.get("key_containers") or []:
        if isinstance(item, dict):
            item.pop("sealed", None)
    return public


def transport_problem(transport: str, option: t.Callable[[str], t.Any]) -> str | None:
    """Why the connection to the target is not known to be encrypted; None when it is."""
    short = transport.rsplit(".", 1)[-1]
    if transport in _ENCRYPTED_TRANSPORTS or transport in _LOCAL_TRANSPORTS:
        return None
    if short == "winrm":
        return _winrm_problem(option)
    if short == "psrp":
        return _psrp_problem(option)
    return f"the connection plugin {transport} is not known to encrypt"


def _winrm_problem(option: t.Callable[[str], t.Any]) -> str | None:
    port = option("port")
    scheme = option("scheme") or ("http" if port is not None and int(port) == 5985 else "https")
    if scheme == "https":
        return None
    extras = option("_extras") or {}
    if str(extras.get("ansible_winrm_message_encryption", "auto")).lower() == "never":
        return "ansible_winrm_scheme is http and ansible_winrm_message_encryption is never"
    chosen = [name for name in (option("transport") or []) if name]
    if not chosen:
        user = str(option("remote_user") or "")
        chosen = ["kerberos"] if "@" in user else ["plaintext"]
    readable = sorted(_WINRM_WITHOUT_ENCRYPTION.intersection(chosen))
    if readable:
        name = readable[0]
        return f"ansible_winrm_scheme is http and ansible_winrm_transport is {name}, which does not encrypt messages"
    return None


def _psrp_problem(option: t.Callable[[str], t.Any]) -> str | None:
    port = option("port")
    protocol = option("protocol") or ("http" if port is not None and int(port) == 5985 else "https")
    if protocol == "https":
        return None
    if str(option("message_encryption") or "auto").lower() == "never":
        return "ansible_psrp_protocol is http and ansible_psrp_message_encryption is never"
    auth = str(option("auth") or "negotiate").lower()
    if auth in _PSRP_WITHOUT_ENCRYPTION:
        return f"ansible_psrp_protocol is http and ansible_psrp_auth is {auth}, which does not encrypt messages"
    return None


class WebfarmAction(ActionBase):  # type: ignore[misc]
    """A controller half. A subclass declares its options and does its work in :meth:`work`."""

    MODULE: t.ClassVar[str]
    SPEC: t.ClassVar[dict[str, dict[str, t.Any]]]
    RULES: t.ClassVar[dict[str, t.Any]] = {}
    # Options that the target half never sees.
    CONTROLLER_ONLY: t.ClassVar[frozenset[str]] = frozenset()

    _task_vars: dict[str, t.Any]

    @abc.abstractmethod
    def work(self, options: Options) -> Result:
        """The result of the task. Raises :class:`ActionFailure`."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> Result:
        super().run(tmp, task_vars)
        self._task_vars = task_vars or {}
        dummy, values = self.validate_argument_spec(argument_spec=self.SPEC, **self.RULES)
        options: Options = {name: values.get(name) for name in self.SPEC}
        try:
            if missing := _libraries.problem():
                raise ActionFailure(missing)
            result = self.work(options)
        except ActionFailure as failure:
            result = {"changed": False, **failure.result, "failed": True, "msg": str(failure)}
        result = public_part(result)
        result["invocation"] = {"module_args": self._masked_arguments()}
        return result

    @property
    def check_mode(self) -> bool:
        return bool(self._task.check_mode)

    def _masked_arguments(self) -> Options:
        return masked(self._task.args, self.SPEC)

    # --- the target half -------------------------------------------------------------------------------------------

    def target_options(self, options: Options) -> Options:
        """What the target half gets: no controller-only option, nothing that was not given."""
        return {
            name: value
            for name, value in options.items()
            if name not in self.CONTROLLER_ONLY and not name.startswith("_") and value is not None
        }

    def call_target(self, arguments: Options, module: str | None = None) -> Result:
        """One call of a module on the target. A failed call raises, with everything the target said."""
        writes = module is None and not self.check_mode and arguments.get("_phase") not in ("compare", "cleanup")
        if writes and arguments.get("deadman_minutes"):
            arguments = {**arguments, "_settler": settler()}
        result: Result = self._execute_module(
            module_name=module or self.MODULE, module_args=arguments, task_vars=self._task_vars
        )
        if result.get("failed"):
            message = str(result.get("msg") or "The module failed on the target without a message.")
            raise ActionFailure(
                message, {name: value for name, value in result.items() if name not in ("failed", "msg")}
            )
        return result

    # --- files of the controller -----------------------------------------------------------------------------------

    def controller_path(self, value: str) -> str:
        """An absolute path on the controller; a relative one starts at the playbook's folder."""
        return str(self._loader.path_dwim(value))

    def read_file(self, value: str, option: str) -> bytes:
        """A file on the controller, opened in memory when ansible-vault encrypted it."""
        path = self.controller_path(value)
        try:
            # The loader decrypts vault files without a temporary file, which a private key must never lie in.
            content: bytes = self._loader._get_file_contents(path)[0]
            return content
        except (AnsibleError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ActionFailure(f"{option}: cannot read {path} on the controller: {reason}") from None

    def find_source(self, value: str) -> str | None:
        """A file named by src: beside the play or in files/, as for the copy modules. None when there is none."""
        try:
            return str(self._find_needle("files", value))
        except AnsibleError:
            return None

    # --- safe surroundings -----------------------------------------------------------------------------------------

    def refuse_unsafe_surroundings(self, allow_unencrypted: bool, needs_target: bool = True) -> None:
        """Stop before a sealed key set is opened where its content could be printed, kept or overheard."""
        if C.DEFAULT_DEBUG:
            raise ActionFailure(
                "ANSIBLE_DEBUG is on: it prints module arguments whatever no_log says, so no bundle is opened. "
                "Unset it and run again."
            )
        if C.DEFAULT_KEEP_REMOTE_FILES:
            raise ActionFailure(
                "ANSIBLE_KEEP_REMOTE_FILES is on: it leaves module arguments on the disks of both sides, "
                "so no bundle is opened. Unset it and run again."
            )
        if not needs_target or allow_unencrypted:
            return
        transport = str(getattr(self._connection, "ansible_name", None) or self._connection.transport)
        problem = transport_problem(transport, self.get_connection_option)
        if problem:
            raise ActionFailure(
                f"The connection to {self._task_vars.get('inventory_hostname')} is not encrypted: {problem}. "
                "Keys travel only over HTTPS, SSH or encrypted messages (WinRM over HTTP: ntlm, kerberos or credssp). "
                "Set allow_unencrypted_transport: true to accept the risk."
            )

    def refuse_recording(self, *, clear: bool) -> None:
        """Stop before a private key travels in a run whose variables or results are kept.

        *clear*: the task itself is given a key in the clear, as a file or an option. Then a verbose log counts as well;
        a task that only moves sealed keys has nothing in it that the log could show.

        It is asked where a key is about to be sealed to a target or to be read in the clear, so a run that only
        compares is never stopped by it.
        """
        problem = recording_problem(
            cache_plugin=str(C.CACHE_PLUGIN or "memory"),
            callbacks=active_callbacks(),
            log_path=C.DEFAULT_LOG_PATH if clear else None,
            verbosity=int(self._display.verbosity),
            no_log=bool(getattr(self._task, "no_log", False)),
        )
        if problem:
            raise ActionFailure(f"A private key would travel while {problem}. Nothing was changed.")

    def warn(self, message: str) -> None:
        self._display.warning(message)
