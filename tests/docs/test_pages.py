"""The documentation says what the code does."""

import re
from pathlib import Path

from app.jobs.discrepancies import CODES
from app.settings import Settings
from operators.gate.policies import CHECKS
from operators.instances import IMAGE_SOP_CLASSES
from operators.pixel_decoders import DECODERS
from operators.sam.windowing import WINDOWS
from tests.docs import render

REPOSITORY = Path(__file__).resolve().parents[2]


def test_settings_page_is_made_from_the_settings() -> None:
    assert render.SETTINGS_PAGE.read_text() == render.settings_page(), "run: python -m tests.docs.render"


def test_every_key_of_every_table_of_the_settings_has_its_row() -> None:
    sections = re.split(r"^## ", render.SETTINGS_PAGE.read_text(), flags=re.MULTILINE)[1:]
    rows = {tuple(re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE)) for section in sections}
    schema = Settings.model_json_schema()
    for table in (schema, *schema["$defs"].values()):
        kinds = {key: {**value, **value.get("items", {})} for key, value in table["properties"].items()}
        tables = {key for key, kind in kinds.items() if any("$ref" in one for one in (kind, *kind.get("anyOf", ())))}
        keys = tuple(key for key in kinds if key not in tables)
        assert keys in rows, f"the page has no table with the keys {keys}"


def test_command_line_page_is_made_from_the_help_texts() -> None:
    assert render.COMMAND_LINE_PAGE.read_text() == render.command_line_page(), "run: python -m tests.docs.render"


def test_api_page_is_made_from_the_description() -> None:
    assert render.API_PAGE.read_text() == render.api_page(), "run: python -m tests.docs.render"


def test_input_checks_page_has_the_checks_of_the_code() -> None:
    assert render.INPUT_CHECKS_PAGE.read_text() == render.input_checks_page(), "run: python -m tests.docs.render"


def test_every_refusal_of_a_series_is_one_of_the_gates_checks() -> None:
    names = ("series_volume", "series_checks", "series_geometry", "instances", "gate/gate")
    raised = {
        code
        for name in names
        for code in re.findall(r'code="([a-z0-9-]+)"', (REPOSITORY / "operators" / f"{name}.py").read_text())
    }
    assert raised
    assert sorted(raised - set(CHECKS)) == []


def test_every_check_that_can_refuse_is_among_the_refusals() -> None:
    page = (REPOSITORY / "docs/reference/refusals.md").read_text()
    assert [code for code in CHECKS if f"`{code}`" not in page] == []


def test_conformance_page_is_made_from_what_the_listener_accepts() -> None:
    assert render.CONFORMANCE_PAGE.read_text() == render.conformance_page(), "run: python -m tests.docs.render"


def test_the_map_of_a_studys_way_names_files_that_exist() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    table = readme.split("## The way of one study")[1].split("## Run it")[0]
    named = re.findall(r"`((?:app|operators)/[\w/]+\.py)`", table)
    assert len(named) >= 10
    assert [name for name in named if not (REPOSITORY / name).is_file()] == []


def test_the_map_passes_through_every_package_of_the_way() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    table = readme.split("## The way of one study")[1].split("## Run it")[0]
    for package in ("listener", "routing", "jobs", "delivery", "audit"):
        assert f"`app/{package}/" in table, f"app/{package} is missing from the README's map"


def test_every_link_between_pages_leads_somewhere() -> None:
    pages = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *(REPOSITORY / "docs").rglob("*.md")]
    broken = []
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            if not (page.parent / target).exists():
                broken.append(f"{page.relative_to(REPOSITORY)}: {target}")
    assert broken == []


def test_every_refusal_code_is_documented() -> None:
    page = (REPOSITORY / "docs/reference/refusals.md").read_text()
    files = [path for folder in ("app", "operators") for path in (REPOSITORY / folder).rglob("*.py")]
    code = "\n".join(path.read_text() for path in files)
    used = set(re.findall(r'code="([a-z0-9-]+)"', code))
    assert used
    missing = sorted(one for one in used if f"`{one}`" not in page)
    assert missing == [], f"docs/reference/refusals.md does not explain {missing}"


def test_inputs_page_names_every_decoder() -> None:
    page = (REPOSITORY / "docs/reference/inputs.md").read_text()
    rows = re.findall(r"^\| [^|]+ \| `([\d.]+)` \| ([^|]+) \| ([^|]+) \|", page, flags=re.MULTILINE)
    assert set(rows) == {(str(uid), one.library, one.license) for uid, one in DECODERS.items()}
    requirements = (REPOSITORY / "requirements/server.txt").read_text().lower()
    for decoder in DECODERS.values():
        assert f"\n{decoder.library.split(' ')[0].lower()}==" in requirements


def test_inputs_page_names_every_image_class() -> None:
    page = (REPOSITORY / "docs/reference/inputs.md").read_text()
    assert [uid.name for uid in IMAGE_SOP_CLASSES if f"| {uid.name} |" not in page] == []


def test_every_window_is_documented() -> None:
    page = (REPOSITORY / "docs/explanation/sam.md").read_text().replace("\n", " ")
    missing = [name for name, window in WINDOWS.items() if f"{name} ({window.centre:g}, {window.width:g})" not in page]
    assert missing == []


def test_every_discrepancy_of_the_account_is_explained() -> None:
    page = (REPOSITORY / "docs/how-to/accounting-and-retention.md").read_text()
    rows = [f"| `{code}` | {one.sentence} | {one.advice} |" for code, one in CODES.items()]
    assert [row for row in rows if row not in page] == []
