"""MkDocs hook: adds an API page for each package, and the Markdown files that lie outside docs/.

The API pages hold mkdocstrings directives, so they follow the docstrings of the package. README.md, CONTRIBUTING.md,
CHANGELOG.md and benchmarks/LOG.md become pages under `repository/`; links between them and docs/ are rewritten.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PACKAGE = "w2s_mlflow"
API = "reference/api"
REPOSITORY = "repository"
OUTSIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/LOG.md")
BRACKETS = re.compile(r'<autoref [^>]*identifier="(:\w+)"[^>]*>(.*?)</autoref>', re.DOTALL)
"""Text such as NAME[@REVISION][:N], which reads like a cross-reference to `:N`."""
LINK = re.compile(r"(\]\()([^)\s#]+)")
"""The target of a Markdown link or image, without its anchor."""


def packages() -> list[str]:
    """The dotted names of the package and of every package inside it."""
    folders = sorted(init.parent for init in (ROOT / PACKAGE).rglob("__init__.py"))
    return [".".join(folder.relative_to(ROOT).parts) for folder in folders]


def api_page(package: str, inner: list[str]) -> str:
    """Markdown of one API page: the package, then each of its modules; packages inside it have pages of their own."""
    folder = ROOT / Path(*package.split("."))
    modules = sorted(file.stem for file in folder.glob("*.py") if not file.stem.startswith("_"))
    names = [f"{package}.{module}" for module in modules]
    links = [f"- [{name}]({name}.md)" for name in inner if name.startswith(f"{package}.")]
    blocks = [f"::: {name}" for name in (package, *names)]
    return "\n\n".join([f"# {package}", "\n".join(links), *blocks]) + "\n"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replace the placeholder of the API in the navigation by one entry per package."""
    pages = [{name: f"{API}/{name}.md"} for name in packages()]
    for section in config.nav or []:
        for title, entries in section.items():
            if title == "Reference":
                section[title] = [{"API": pages} if "API" in entry else entry for entry in entries]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    names = packages()
    for name in names:
        files.append(File.generated(config, f"{API}/{name}.md", content=api_page(name, names)))
    for path in OUTSIDE:
        files.append(File.generated(config, f"{REPOSITORY}/{path}", content=(ROOT / path).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to where a file stands in the site, for links that leave or enter docs/."""
    here = page.file.src_uri
    return LINK.sub(lambda found: found[1] + _link(found[2], here), markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Restore brackets in docstrings that are no cross-reference."""
    return BRACKETS.sub(r"[\2][\1]", html)


def _link(target: str, here: str) -> str:
    """`target`, a link of the page `here`, as a path between pages of the site."""
    if "://" in target or target.startswith(("/", "mailto:")):
        return target
    source = here.removeprefix(f"{REPOSITORY}/") if here.startswith(f"{REPOSITORY}/") else f"docs/{here}"
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    in_site = f"{REPOSITORY}/{path}" if path in OUTSIDE else path.removeprefix("docs/")
    return posixpath.relpath(in_site, posixpath.dirname(here) or ".")
