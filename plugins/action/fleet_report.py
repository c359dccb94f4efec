# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""fleet_report runs on the controller alone: a folder of host records and a policy in, verdicts and reports out."""

from __future__ import annotations

import getpass
import io
import json
import platform
import typing as t
from pathlib import Path

from ansible.release import __version__ as ansible_version

from ansible_collections.webfarm.iis.plugins.plugin_utils import (
    _bundle,
    _evidence,
    _page,
    _policy,
    _record,
    _report,
    _rules,
)
from ansible_collections.webfarm.iis.plugins.plugin_utils._action import (
    ActionFailure,
    Options,
    Result,
    WebfarmAction,
    write_private_file,
)

NAMED = 50  # hosts that the result and the message name; the reports name all


class ActionModule(WebfarmAction):
    _requires_connection = False

    MODULE = "webfarm.iis.fleet_report"
    SPEC = {
        "bundles": {"type": "list", "elements": "path", "default": []},
        "csv": {"type": "path"},
        "evidence_dir": {"type": "path"},
        "expected_hosts": {"type": "list", "elements": "str", "default": []},
        "fail_on": {"type": "list", "elements": "str", "default": []},
        "html": {"type": "path"},
        "json": {"type": "path"},
        "junit": {"type": "path"},
        "operator": {"type": "str"},
        "policy": {"type": "dict", "default": {}},
        "previous": {"type": "path"},
        "report_dir": {"type": "path", "required": True},
        "signer_certificate": {"type": "path"},
        "signing_certificate": {"type": "path"},
        "signing_file": {"type": "path"},
        "signing_passphrase": {"type": "str", "no_log": True},
        "title": {"type": "str", "default": "Compliance of the IIS fleet"},
    }
    RULES = {"required_together": [("signing_file", "signing_certificate")]}

    def work(self, options: Options) -> Result:
        try:
            policy = _policy.load_policy(options["policy"])
            fail_on = _policy.check_fail_on(options["fail_on"])
            known = self._known(options)
            report = _report.evaluate(
                Path(self.controller_path(options["report_dir"])),
                policy,
                known=known,
                expected=options["expected_hosts"],
                title=options["title"],
            )
        except (_policy.PolicyError, _bundle.BundleError) as error:
            raise ActionFailure(str(error)) from None
        except _record.RecordError as error:
            raise ActionFailure(f"report_dir: {error}") from None
        if not report.hosts:
            raise ActionFailure(
                f"report_dir: there is no host record in {options['report_dir']}. Run compliance_record first; "
                "a report about nothing would look like a good one."
            )
        if options["previous"]:
            try:
                report.drift = _report.drift(_report.read_json(Path(self.controller_path(options["previous"]))), report)
            except _report.ReportError as error:
                raise ActionFailure(f"previous: {error}") from None
        signer = self._signer(options)
        result = self._result(report, fail_on)
        contents = self._contents(options, report, fail_on)
        if not self.check_mode:
            result["changed"] = self._write(options, contents)
            if options["evidence_dir"]:
                result["evidence"] = self._evidence(options, report, fail_on, contents, signer)
                result["changed"] = True
        result["files"] = {name: self.controller_path(options[name]) for name in contents}
        violations = report.violations(fail_on)
        result["violations"] = dict(list(violations.items())[:NAMED])
        result["passed"] = not violations
        if violations:
            names = ", ".join(f"{host} ({', '.join(rules)})" for host, rules in list(violations.items())[:5])
            more = f" and {len(violations) - 5} more" if len(violations) > 5 else ""
            raise ActionFailure(
                f"{len(violations)} of {len(report.hosts)} hosts do not comply (fail_on: {', '.join(fail_on)}): "
                f"{names}{more}.",
                result,
            )
        return result

    # --- in ----------------------------------------------------------------------------------------------------------

    def _known(self, options: Options) -> list[_rules.KeySet]:
        """The key sets that the bundles name. Only their clear part is read, nothing is opened."""
        certificate = None
        if options["signer_certificate"]:
            certificate = self.read_file(options["signer_certificate"], "signer_certificate")
        found = []
        for path in options["bundles"]:
            bundle = _bundle.parse_bundle(self.read_file(path, "bundles"), f"bundles: {self.controller_path(path)}")
            if certificate is not None:
                _bundle.check_trust(
                    bundle,
                    containers=[key.container for key in bundle.containers],
                    expected_fingerprints=None,
                    signer_certificate=certificate,
                )
            found.append(
                _rules.KeySet(
                    bundle.farm,
                    bundle.generation,
                    bundle.fingerprints(),
                    f"the bundle {Path(path).name} (generation {bundle.generation})",
                )
            )
        return found

    def _signer(self, options: Options) -> _evidence.Signer | None:
        if not options["signing_file"]:
            return None
        if not options["evidence_dir"]:
            raise ActionFailure("signing_file: there is nothing to sign without evidence_dir. Set both or none.")
        return _evidence.Signer(
            self.read_file(options["signing_file"], "signing_file"),
            options["signing_passphrase"],
            self.read_file(options["signing_certificate"], "signing_certificate"),
            f"signing_file: {self.controller_path(options['signing_file'])}",
        )

    # --- out ---------------------------------------------------------------------------------------------------------

    def _result(self, report: _report.Report, fail_on: list[str]) -> Result:
        noncompliant = [one.view.name for one in report.hosts if one.status != _rules.PASS]
        result: Result = {
            "changed": False,
            "summary": report.summary(),
            "rules": {name: dict(counts) for name, counts in report.totals().items()},
            "noncompliant": noncompliant[:NAMED],
            "lines": _report.lines(report),
        }
        if report.drift is not None:
            result["drift"] = {
                name: value if isinstance(value, (int, str)) else len(value) for name, value in report.drift.items()
            }
        return result

    def _contents(self, options: Options, report: _report.Report, fail_on: list[str]) -> dict[str, bytes]:
        contents: dict[str, bytes] = {}
        if options["json"]:
            text = io.StringIO()
            _report.write_json(report, text)
            contents["json"] = text.getvalue().encode("utf-8", "replace")
        if options["junit"]:
            binary = io.BytesIO()
            _report.write_junit(report, binary, fail_on)
            contents["junit"] = binary.getvalue()
        if options["csv"]:
            text = io.StringIO(newline="")
            _report.write_csv(report, text)
            # With a byte-order mark Excel reads it as UTF-8.
            contents["csv"] = text.getvalue().encode("utf-8-sig", "replace")
        if options["html"]:
            contents["html"] = _page.render(report).encode("utf-8", "replace")
        return contents

    def _write(self, options: Options, contents: t.Mapping[str, bytes]) -> bool:
        changed = False
        for name, content in contents.items():
            path = Path(self.controller_path(options[name]))
            try:
                same = path.read_bytes() == content
            except OSError:
                same = False
            if not same:
                write_private_file(str(path), content, name)
                changed = True
        return changed

    def _evidence(
        self,
        options: Options,
        report: _report.Report,
        fail_on: list[str],
        contents: t.Mapping[str, bytes],
        signer: _evidence.Signer | None,
    ) -> Result:
        content = _evidence.content_of(
            report,
            tool={"webfarm.iis": _own_version(), "ansible-core": ansible_version, "python": platform.python_version()},
            operator=options["operator"] or _user(),
            fail_on=fail_on,
            outputs={name: _evidence.digest(data) for name, data in contents.items()},
        )
        folder = Path(self.controller_path(options["evidence_dir"]))
        try:
            written = _evidence.append(folder, content, signer)
        except _evidence.EvidenceError as error:
            raise ActionFailure(f"evidence_dir: {error}") from None
        return {
            "number": written.number,
            "path": str(written.path),
            "sha256": written.sha256,
            "signature": str(written.signature) if written.signature else None,
        }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "unknown"


def _own_version() -> str:
    """The version of the installed collection."""
    try:
        manifest = json.loads((Path(__file__).parents[2] / "MANIFEST.json").read_bytes())
        return str(manifest["collection_info"]["version"])
    except (OSError, ValueError, KeyError):
        return "unreleased"
