"""The snippets of the guide and of the READMEs, run in order as one program each."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("document", ["CUSTOM_STRATEGY_GUIDE.md", "README.md", "README.zh-CN.md"])
def test_snippets_run(document, capsys):
    text = (ROOT / document).read_text(encoding="utf-8")
    snippets = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    assert snippets, f"{document} has no snippet"
    namespace = {"__name__": f"snippets_of_{Path(document).stem.lower()}"}
    for snippet in snippets:
        exec(compile(snippet, document, "exec"), namespace)
    assert capsys.readouterr().out.strip()
