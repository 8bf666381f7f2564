"""The gallery of the site: a page, a notebook and a card of every script in examples/. A hook of MkDocs.

Nothing is run: outputs and figures are those that `render.py` kept.
"""

from pathlib import Path
from typing import Any

from cells import Example, examples, notebook
from mkdocs.structure.files import File, Files

SECTION, INDEX, CARDS = "Gallery", "gallery/index.md", "<!-- cards -->"


def on_config(config: Any) -> Any:
    """An example that the navigation does not name comes last in its section."""
    section = next(entry[SECTION] for entry in config.nav if isinstance(entry, dict) and SECTION in entry)
    named = _paths(section)
    for shown in examples():
        if _page(shown) not in named:
            section.append({shown.title.partition(":")[0]: _page(shown)})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages, with the notebook and the script of each."""
    for shown in examples():
        for path, content in (
            (_page(shown), page(shown)),
            (f"gallery/{shown.name}.ipynb", notebook(shown)),
            (f"gallery/{shown.name}.py", shown.script.read_text(encoding="utf-8")),
        ):
            files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Put the cards into the index, in the order of the navigation."""
    if page.file.src_uri != INDEX:
        return markdown
    section = next(entry[SECTION] for entry in config.nav if isinstance(entry, dict) and SECTION in entry)
    order = {path: i for i, path in enumerate(_paths(section))}
    shown = sorted(examples(), key=lambda e: order[_page(e)])
    return markdown.replace(CARDS, '<div class="grid cards" markdown>\n\n' + "\n".join(map(card, shown)) + "\n</div>")


def page(shown: Example) -> str:
    """The example in Markdown."""
    head, *rest = shown.cells
    parts = [head.source, _downloads(shown), _standing(shown)]
    for cell in rest:
        if cell.kind == "markdown":
            parts.append(cell.source)
            continue
        parts.append(_fenced(cell.source, "python"))
        if cell.output is None:
            parts += ["*This cell has changed since the example was last run: no output.*"] if shown.run else []
            continue
        if cell.output.text.strip():
            parts.append(_fenced(cell.output.text.rstrip(), 'text title="Output"'))
        parts += [f"![{_alt(f)}]({shown.name}/{f}){{ loading=lazy }}" for f in cell.output.figures]
    return "\n\n".join(part for part in parts if part) + "\n"


def card(shown: Example) -> str:
    """Picture, title and first words of an example, as an item of a list."""
    link = f"{shown.name}.md"
    picture = [f"[![{_alt(f)}]({shown.name}/{f}){{ loading=lazy }}]({link})" for f in shown.figures[:1]]
    parts = [*picture, f"**[{shown.title}]({link})**", shown.summary]
    indented = "\n\n".join(parts).replace("\n", "\n    ")
    return f"-   {indented}\n"


def _downloads(shown: Example) -> str:
    files = (("Notebook", f"{shown.name}.ipynb"), ("Script", f"{shown.name}.py"))
    return " ".join(f'[{text}]({file}){{ .md-button download="{file}" }}' for text, file in files)


def _standing(shown: Example) -> str:
    if not shown.run:
        return f"*No outputs yet: `python docs/_gallery/render.py {shown.name}` makes them.*"
    run = shown.run
    text = (
        f"Outputs of {run['date']}: dsrecon {run['dsrecon']}, jax {run['jax']}, {run['seconds']:.0f} s on {run['on']}."
    )
    if any(cell.kind == "code" and cell.output is None for cell in shown.cells):
        text += " Cells that changed since are marked; what others show may depend on what those were."
    return f"*{text}*"


def _fenced(text: str, head: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{head}\n{text}\n{fence}"


def _alt(figure: str) -> str:
    return Path(figure).stem.replace("-", " ")


def _page(shown: Example) -> str:
    return f"gallery/{shown.name}.md"


def _paths(section: list[Any]) -> list[str]:
    return [path for entry in section for path in (entry.values() if isinstance(entry, dict) else [entry])]
