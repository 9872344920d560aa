"""The settings: what a file and the environment may say, and what is told when they can't be used."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.errors import SettingsError
from app.settings import Settings, load_settings
from app.settings_listener import ListenerSettings, SourceSettings

WHOLE = """
data_folder = "limner-data"
model_repository = "/srv/models"

[listener]
ae_title = "LIMNER_A"
host = "0.0.0.0"
port = 104

[[listener.source]]
ae_title = "MODALITY"
hosts = ["10.0.0.7"]
quiet_seconds = 3

[triton]
python = "triton/bin/python"

[models]
exporter_python = "exporter/bin/python"

[[pipeline]]
name = "liver"
model = "nnunet_liver_spleen_demo"

[[destination]]
name = "archive"
ae_title = "ARCHIVE"
host = "127.0.0.1"
port = 4242

[[rule]]
name = "abdomen"
pipeline = "liver"
destinations = ["archive"]
[rule.match]
Modality = "CT"
SliceThickness = { maximum = 5.0 }
"""


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("LIMNER__")]:
        monkeypatch.delenv(name)


class TestWeb:
    """The API's token and address."""

    TOKEN = "0123456789abcdef" * 2

    def test_the_token_comes_from_environment_or_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "token").write_text(f"{self.TOKEN}\n")
        path = write(tmp_path, '[web]\ntoken_file = "token"\n')
        assert load_settings(path).web.read_token() == self.TOKEN
        monkeypatch.setenv("LIMNER__WEB__TOKEN", "f" * 40)
        with pytest.raises(SettingsError, match="both token and token_file"):
            load_settings(path).web.read_token()
        settings = load_settings(write(tmp_path, ""))
        assert settings.web.read_token() == "f" * 40
        assert "ffff" not in repr(settings) + settings.model_dump_json()

    @pytest.mark.parametrize("token", ["", "short", "x" * 31, "x" * 40 + " x", "ü" * 40, "x" * 40 + "\x00"])
    def test_a_token_that_is_none_is_not_told(self, tmp_path: Path, token: str) -> None:
        (tmp_path / "token").write_text(token)
        with pytest.raises(SettingsError) as caught:
            load_settings(write(tmp_path, '[web]\ntoken_file = "token"\n')).web.read_token()
        assert caught.value.code == "web-token"
        assert not token or token not in str(caught.value)

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "localhost", "limner.example.org"])
    def test_other_hosts_must_be_allowed(self, tmp_path: Path, host: str) -> None:
        with pytest.raises(SettingsError, match="has no TLS"):
            load_settings(write(tmp_path, f'[web]\nhost = "{host}"\n'))
        allowed = f'[web]\nhost = "{host}"\nallow_other_hosts = true\n'
        assert load_settings(write(tmp_path, allowed)).web.host == host

    def test_the_name_of_what_people_draw_is_kept(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="'interactive' is kept"):
            load_settings(write(tmp_path, '[[pipeline]]\nname = "interactive"\nmodel = "one"\n'))


def write(folder: Path, text: str) -> Path:
    path = folder / "limner.toml"
    path.write_text(text)
    return path


def test_a_whole_file(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, WHOLE))
    assert settings.listener.ae_title == "LIMNER_A"
    assert settings.listener.port == 104
    assert settings.listener.source[0].hosts == ("10.0.0.7",)
    assert settings.pipeline_named("liver").model == "nnunet_liver_spleen_demo"
    assert settings.destination_named("archive").port == 4242
    assert settings.rule[0].match == {"Modality": "CT", "SliceThickness": {"maximum": 5.0}}
    with pytest.raises(KeyError):
        settings.pipeline_named("kidney")
    with pytest.raises(KeyError):
        settings.destination_named("nowhere")


def test_relative_files_of_tls_count_from_the_file(tmp_path: Path) -> None:
    text = '[listener.tls]\ncertificate = "limner.crt"\nkey = "/etc/limner.key"\nauthorities = "hospital.crt"\n'
    tls = load_settings(write(tmp_path, text)).listener.tls
    assert tls is not None
    assert tls.certificate == tmp_path.resolve() / "limner.crt"
    assert tls.key == Path("/etc/limner.key")
    assert tls.authorities == tmp_path.resolve() / "hospital.crt"
    with pytest.raises(SettingsError, match="needs authorities"):
        load_settings(write(tmp_path, '[listener.tls]\ncertificate = "a"\nkey = "b"\n'))


def test_relative_folders_count_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    settings = load_settings(write(tmp_path, WHOLE))
    assert settings.data_folder == tmp_path.resolve() / "limner-data"
    assert settings.model_repository == Path("/srv/models")
    assert settings.triton.python == tmp_path.resolve() / "triton/bin/python"
    assert settings.models.exporter_python == tmp_path.resolve() / "exporter/bin/python"
    folders = [
        settings.spool_folder,
        settings.results_folder,
        settings.audit_folder,
        settings.database_folder,
        settings.run_folder,
    ]
    assert len(set(folders)) == 5
    assert {folder.parent for folder in folders} == {settings.data_folder}


def test_the_interpreter_is_not_resolved_through_links(tmp_path: Path) -> None:
    (tmp_path / "python").symlink_to("/bin/sh")
    settings = load_settings(write(tmp_path, '[triton]\npython = "python"'))
    assert settings.triton.python == tmp_path.resolve() / "python"


def test_defaults_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings(None)
    assert settings.data_folder == tmp_path.resolve() / "data"
    assert settings.listener.host == "127.0.0.1"
    assert settings.rule == ()
    assert settings.logging.identifiers is False


def test_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, WHOLE)
    monkeypatch.setenv("LIMNER__LISTENER__PORT", "11113")
    monkeypatch.setenv("LIMNER__DATABASE__URL", "postgresql://db/limner")
    settings = load_settings(path)
    assert settings.listener.port == 11113
    assert settings.listener.ae_title == "LIMNER_A"  # what the environment does not name stays
    assert settings.database.url == "postgresql://db/limner"


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("nonsense = 1", ["nonsense", "not permitted"]),
        ("[listener]\nprot = 104", ["listener.prot", "not permitted"]),
        ("[listener]\nport = 70000", ["listener.port", "65535"]),
        ("[listener]\nae_title = 'A TITLE THAT IS TOO LONG'", ["listener.ae_title", "application entity title"]),
        ("[routing]\nseries_quiet_seconds = 0", ["routing.series_quiet_seconds"]),
        ("[logging]\nlevel = 'loud'", ["logging.level", "debug"]),
        ("[[pipeline]]\nname = 'A b'\nmodel = 'm'", ["pipeline.0.name", "lower-case"]),
        ("[[pipeline]]\nname = 'a'\nmodel = 'm'\napplication = 'os;system'", ["pipeline.0.application"]),
        (
            "[[pipeline]]\nname = 'a'\nmodel = 'm'\n[[pipeline]]\nname = 'a'\nmodel = 'n'",
            ["two [[pipeline]] tables have the same name: a"],
        ),
        ("[[rule]]\nname = 'r'\npipeline = 'p'\ndestinations = []", ["rule 'r' names the pipeline 'p'"]),
        (
            "[[pipeline]]\nname = 'p'\nmodel = 'm'\n[[rule]]\nname = 'r'\npipeline = 'p'\ndestinations = ['x', 'b']",
            ["rule 'r' names destinations without a [[destination]]: b, x"],
        ),
        (
            "[[rule]]\nname = 'r'\npipeline = 'p'\ndestinations = []\n[rule.channels.T1]\nModality = 'MR'",
            ["rule.0", "rule 'r' has channels", 'write after = "study"'],
        ),
        (
            "[[rule]]\nname = 'r'\npipeline = 'p'\ndestinations = []\nafter = 'study'\nchannels = { T1 = 'MR' }",
            ["rule.0.channels.T1", "dictionary"],
        ),
        (
            "[[listener.source]]\nae_title = 'CT'\nhosts = ['10.0.0.5']\nquiet_seconds = 5\n"
            "[[listener.source]]\nae_title = 'CT'\nhosts = ['10.0.0.6']\nask = 'pacs'",
            ["listener", "AE title CT", "quiet_seconds, ask", "put their hosts into one table"],
        ),
        (
            "[[listener.source]]\nae_title = 'CT'\n[[listener.source]]\nae_title = 'CT'\ncomplete_on_release = true",
            ["listener", "AE title CT", "complete_on_release"],
        ),
        (
            "[listener]\nport = 0\nmaximum_associations = 0\nhosts = 1",
            ["listener.maximum_associations", "listener.hosts"],
        ),
    ],
)
def test_every_problem_is_named(tmp_path: Path, text: str, messages: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(write(tmp_path, text))
    for message in messages:
        assert message in str(caught.value)


def test_sources_of_one_title_may_call_from_hosts_of_their_own() -> None:
    one, other = (SourceSettings(ae_title="CT", hosts=(host,), quiet_seconds=5) for host in ("10.0.0.5", "10.0.0.6"))
    third = SourceSettings(ae_title="MR", complete_on_release=True)
    assert ListenerSettings(source=(one, other, third)).source == (one, other, third)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist; write one"):
        load_settings(tmp_path / "limner.toml")


def test_a_file_that_is_not_toml(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is not TOML"):
        load_settings(write(tmp_path, "[listener\nport = 1"))


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ListenerSettings().port = 1


def test_every_key_is_described() -> None:
    def undescribed(model: type, prefix: str = "") -> list[str]:
        found = []
        for name, field in model.model_fields.items():  # type: ignore[attr-defined]
            kind = field.annotation
            if isinstance(kind, type) and hasattr(kind, "model_fields"):
                found += undescribed(kind, f"{prefix}{name}.")
            elif not field.description:
                found.append(prefix + name)
        return found

    assert undescribed(Settings) == []


def test_a_model_configuration_is_a_name_and_for_the_embedded_triton_alone(tmp_path: Path) -> None:
    text = '[triton]\nmodel_configuration = "openvino"\n'
    assert load_settings(write(tmp_path, text)).triton.model_configuration == "openvino"
    with pytest.raises(SettingsError, match=r"triton.model_configuration"):
        load_settings(write(tmp_path, '[triton]\nmodel_configuration = "../openvino"\n'))
    with pytest.raises(SettingsError, match="start that one with --model-config-name"):
        load_settings(write(tmp_path, f'{text}address = "triton:8001"\n'))


CHAIN = """
[[pipeline]]
name = "liver"
model = "nnunet_liver"

[pipeline.generalist]
model = "sam"
most_distance_mm = 8

[[pipeline]]
name = "alone"
model = "nnunet_liver"

[[rule]]
name = "ct"
pipeline = "PIPELINE"
destinations = []
on_disagreement = "hold"
"""


def _chain(folder: Path, text: str) -> Settings:
    path = folder / "limner.toml"
    path.write_text(text)
    return load_settings(path)


def test_a_generalist_belongs_to_the_pipeline_before_it(tmp_path: Path) -> None:
    settings = _chain(tmp_path, CHAIN.replace("PIPELINE", "liver"))
    generalist = settings.pipeline_named("liver").generalist
    assert generalist is not None
    assert (generalist.model, generalist.window, generalist.least_dice, generalist.most_distance_mm) == (
        "sam", "", 0.8, 8,
    )  # fmt: skip
    assert settings.pipeline_named("alone").generalist is None
    assert settings.rule[0].on_disagreement == "hold"


def test_a_rule_can_not_say_what_a_disagreement_means_where_none_is_possible(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="has no generalist that could disagree"):
        _chain(tmp_path, CHAIN.replace("PIPELINE", "alone"))


_PROMPTED = """
[[pipeline]]
name = "drawn"
model = "sam"
[pipeline.prompt]
"""


def _written(folder: Path, text: str) -> Path:
    path = folder / "limner.toml"
    path.write_text(text)
    return path


def test_a_prompted_pipeline_has_its_application(tmp_path: Path) -> None:
    pipeline = load_settings(_written(tmp_path, _PROMPTED)).pipeline_named("drawn")
    assert pipeline.application == "app.prompted:PromptedApp"
    assert pipeline.prompt is not None
    assert (pipeline.prompt.window, pipeline.prompt.reach) == ("", "slice")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('window = "liverr"', "there is no window 'liverr'"),
        ('window = "40/0"', "a width above 0"),
        ('reach = "study"', "slice"),
        ('source = "pacs"', r"no \[\[archive\]\] has that name"),
        (
            '[[rule]]\nname = "drawn"\npipeline = "drawn"\ndestinations = []\nafter = "study"\n'
            "[rule.channels]\nCT = {}",
            "leave the channels out",
        ),
    ],
    ids=["window", "width", "reach", "source", "channels"],
)
def test_what_a_prompt_cannot_say(tmp_path: Path, more: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings(_written(tmp_path, _PROMPTED + more))


class TestSlots:
    """How many graphs run at once."""

    def test_a_pipeline_names_slots_that_exist(self, tmp_path: Path) -> None:
        whole = WHOLE.replace('model = "nnunet_liver_spleen_demo"', 'model = "nnunet_liver_spleen_demo"\nslots = "gpu"')
        path = tmp_path / "limner.toml"
        path.write_text(whole)
        with pytest.raises(SettingsError, match="names the slots 'gpu', and no"):
            load_settings(path)
        path.write_text(whole + '\n[[slots]]\nname = "gpu"\nat_once = 2\nat_once_here = 2\n')
        assert load_settings(path).slots[0].at_once == 2

    @pytest.mark.parametrize("text", ["at_once = 0", "at_once_here = 0", f'name = "{"a" * 33}"', 'name = "GPU"'])
    def test_what_slots_cannot_be(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "limner.toml"
        path.write_text("[[slots]]\n" + (text if "name" in text else f'name = "gpu"\n{text}') + "\n")
        with pytest.raises(SettingsError):
            load_settings(path)


class TestCommitment:
    """What a destination is asked after it was sent results."""

    def _destination(self, **more: Any) -> dict[str, Any]:
        return {"name": "archive", "ae_title": "PACS", "host": "pacs", "port": 104, **more}

    def test_whom_to_ask(self) -> None:
        asked = [
            Settings.model_validate({"destination": [self._destination(**more)]}).destination[0].asked
            for more in ({}, {"ask": "never"}, {"ask": "QUERY@other:11112"})
        ]
        assert asked == [("PACS", "pacs", 104), None, ("QUERY", "other", 11112)]

    @pytest.mark.parametrize("ask", ["", "other", "QUERY@other", "QUERY@other:0", "QUERY@other:99999", "A\\B@h:1"])
    def test_nobody_to_ask(self, ask: str) -> None:
        with pytest.raises(ValidationError):
            Settings.model_validate({"destination": [self._destination(ask=ask)]})

    def test_a_query_needs_somebody_to_ask(self) -> None:
        with pytest.raises(ValidationError, match="never asked"):
            Settings.model_validate({"destination": [self._destination(commitment="query", ask="never")]})

    def test_a_report_must_be_let_in(self) -> None:
        reporting = self._destination(commitment="storage-commitment")
        closed = {"source": [{"ae_title": "MODALITY"}]}
        with pytest.raises(ValidationError, match="does not let PACS in"):
            Settings.model_validate({"destination": [reporting], "listener": closed})
        Settings.model_validate({"destination": [reporting]})
        closed["source"].append({"ae_title": "PACS"})
        Settings.model_validate({"destination": [reporting], "listener": closed})
