"""Extensions in a folder of the test, instead of src/resnext/extensions/."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import resnext.extensions
from resnext import registry

PAGE = Path(__file__).parents[2] / "docs/extending.md"


def examples() -> dict[str, str]:
    """The Python blocks of docs/extending.md, by module name."""
    blocks = re.findall(r"```python\n(# src/resnext/extensions/(\w+)\.py.*?)```", PAGE.read_text(), re.DOTALL)
    return {name: text for text, name in blocks}


@contextmanager
def extensions(folder: Path, **modules: str) -> Iterator[None]:
    """Makes these modules the only extensions, and restores the earlier state afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    path, parts, loaded = resnext.extensions.__path__, dict(registry._parts), set(sys.modules)
    resnext.extensions.__path__ = [str(folder)]
    registry.load_extensions.cache_clear()
    try:
        yield
    finally:
        resnext.extensions.__path__ = path
        registry._parts.clear()
        registry._parts.update(parts)
        registry.load_extensions.cache_clear()
        for name in sys.modules.keys() - loaded:
            if name.startswith(f"{registry.FOLDER}."):
                del sys.modules[name]
