"""`chatsdk doctor`: why do messages not flow, and what to do about it?

One line a check, from this machine outwards, so that the first "fail" is the one to look at. It sends no message and
repairs nothing. Each check has a limit (`--timeout`, at most 4 s; a token command has its own 10 s), and all together
end within 30 s.
"""

from __future__ import annotations

import click

from .. import exits, output
from ..options import Options, passes_options


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@passes_options
def command(options: Options, as_json: bool) -> int:
    """Find out why messages do not flow, and say what to do.

    Looks at settings, state directory, plugins, proxy, DNS, TCP, TLS, captive portals, server, clock, token and
    websocket. Exit code 1 if one of them fails, 0 if not (a warning is no failure), 78 without usable settings.
    """
    from ..doctor.examination import examine
    from ..doctor.findings import Finding, exit_code

    found: list[Finding] = []
    for finding in examine(options):
        shown = Finding(finding.check, finding.verdict, _clean(finding.message), _clean(finding.hint))
        found.append(shown)
        if not as_json:
            output.line(f"{shown.verdict.value:4}  {shown.check:15}  {shown.message}")
            if shown.hint:
                output.line(f"{'':21}  -> {shown.hint}")
    code = exit_code(found)
    if as_json:
        output.as_json({"ok": code == exits.OK, "checks": [each.to_dict() for each in found], "exit": code})
    return code


def _clean(text: str) -> str:
    return output.plain(output.redact(text))
