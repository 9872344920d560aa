"""The settings: one TOML file, overridden by ``LIMNER__SECTION__KEY`` in the environment. Unknown keys are errors.

Times are seconds, sizes are bytes. ``docs/reference/settings.md`` describes every key; a test holds it to this file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from app.errors import SettingsError
from app.identifiers import parse_ae_title
from app.settings_delivery import ReturnSettings, check_reporters
from app.settings_dicomweb import DicomWebSettings
from app.settings_listener import ListenerSettings
from app.settings_peer_tls import SecuredSettings
from app.settings_pipeline import PipelineSettings, RuleSettings
from app.settings_retention import RetentionSettings
from app.settings_routing import RoutingSettings
from app.settings_section import NoResult, ResultKind, Section, SegmentationForm, checked_name
from app.settings_shared_storage import SharedStorageSettings
from app.settings_slots import DEFAULT_SLOTS, SlotsSettings
from app.settings_web import INTERACTIVE, WebSettings
from app.settings_worker import WorkerSettings

_REPOSITORY_FOLDER = Path(__file__).resolve().parent.parent


class DestinationSettings(ReturnSettings, SecuredSettings, DicomWebSettings):
    """Where results are sent: ``[[destination]]``.

    By C-STORE to `ae_title`, `host` and `port`, or by STOW-RS to `url`.
    """

    name: str = Field(description="What rules and records call it.")
    ae_title: str = Field(default="", description="The called AE title; required without `url`.")
    host: str = Field(default="", description="Its address; required without `url`.")
    port: int = Field(default=0, ge=1, le=65535, description="Its TCP port; required without `url`.")
    calling_ae_title: str | None = Field(
        default=None, description="What Limner calls itself; by default the listener's title."
    )
    results: tuple[ResultKind, ...] | None = Field(
        default=None, min_length=1, description="What it gets, whatever the rule's `results` are."
    )
    segmentation_as: tuple[SegmentationForm, ...] = Field(
        default=("segmentation",),
        min_length=1,
        description="The forms that a segmentation may have for it, the best first; it gets the first that it accepts "
        "when asked: `labelmap`, `segmentation` (BINARY), `structure-set`, `capture`, `presentation-state`.",
    )
    probe_seconds: float = Field(default=3600.0, gt=0, description="How often it is asked what it accepts.")
    timeout_seconds: float = Field(
        default=30.0,
        gt=0,
        description="Longest wait for a connection or an answer; an object may take a second more for each 64 KiB.",
    )
    retry_first_seconds: float = Field(default=5.0, gt=0, description="Wait before the second attempt; doubles after.")
    retry_longest_seconds: float = Field(default=600.0, gt=0, description="The longest wait between attempts.")
    maximum_attempts: int = Field(
        default=200, ge=1, description="Attempts before a delivery fails; those that did not reach it do not count."
    )
    on_superseded: Literal["keep", "withdraw"] = Field(
        default="keep",
        description="What becomes of results there that a newer revision of their series supersedes: they stay, or a "
        "rejection note withdraws them.",
    )

    _name = field_validator("name")(staticmethod(checked_name))
    _ae_title = field_validator("ae_title")(staticmethod(parse_ae_title))

    @model_validator(mode="after")
    def _has_one_address(self) -> DestinationSettings:
        keys = ("ae_title", "host", "port", "calling_ae_title", "tls")
        self.check_address({key: getattr(self, key) for key in keys})
        return self

    @property
    def address(self) -> str:
        """Whom it is: the URL, or title, host and port."""
        return self.url or f"{self.ae_title}@{self.host}:{self.port}"

    @property
    def asked(self) -> tuple[str, str, int] | None:
        """Title, host and port of whom to ask by C-FIND what it holds; None if nobody."""
        return self.query_service or (None if self.ask == "never" else (self.ae_title, self.host, self.port))


class ArchiveSettings(SecuredSettings):
    """Where images are fetched from by C-MOVE, that prompts refer to, and who is asked by C-FIND: ``[[archive]]``.

    The archive must know the listener's AE title with its address: it sends the images there by C-STORE.
    """

    name: str = Field(description="What pipelines and records call it.")
    ae_title: str = Field(description="The called AE title.")
    host: str = Field(description="Its address.")
    port: int = Field(ge=1, le=65535, description="Its TCP port.")
    timeout_seconds: float = Field(default=30.0, gt=0, description="Longest wait for a connection or an answer.")
    fetch_seconds: float = Field(default=600.0, gt=0, description="Longest time that one series may take.")

    _name = field_validator("name")(staticmethod(checked_name))
    _ae_title = field_validator("ae_title")(staticmethod(parse_ae_title))


class TritonSettings(Section):
    """The inference server: ``[triton]``."""

    address: str | tuple[str, ...] | None = Field(
        default=None,
        description="An external Triton's gRPC address, `host:port` or `unix:…`, or a list of them, of which each run "
        "takes the next that answers; embedded if not given.",
    )
    python: Path = Field(
        default=_REPOSITORY_FOLDER / ".triton" / "bin" / "python",
        description="The interpreter of the embedded Triton's own environment.",
    )
    model_configuration: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_-]+$",
        description="The embedded Triton takes `configs/<this>.pbtxt` of each model that has one; else `config.pbtxt`.",
    )
    start_seconds: float = Field(default=120.0, gt=0, description="Longest wait until the embedded Triton is ready.")
    probe_seconds: float = Field(default=10.0, gt=0, description="How often a tiny real inference checks it.")
    request_seconds: float = Field(default=300.0, gt=0, description="Deadline of one inference request.")
    shared_memory: bool = Field(default=True, description="Use system shared memory with a Triton on this host.")

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of the external Tritons; none where it is embedded."""
        if self.address is None:
            return ()
        return (self.address,) if isinstance(self.address, str) else self.address

    @field_validator("address")
    @classmethod
    def _has_one(cls, address: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if address is not None and not address:
            raise ValueError("expected an address such as triton:8001, or a list of one or more; leave it out to embed")
        return address

    @model_validator(mode="after")
    def _configuration_is_for_the_embedded(self) -> TritonSettings:
        if self.address is not None and self.model_configuration is not None:
            raise ValueError(
                "model_configuration is for the embedded Triton, and address names another: start that one with "
                "--model-config-name instead"
            )
        return self


class ModelsSettings(Section):
    """What `limner models` works with: ``[models]``."""

    exporter_python: Path = Field(
        default=_REPOSITORY_FOLDER / ".exporter" / "bin" / "python",
        description="The interpreter of the exporter environment (torch, nnU-Net); the server itself never uses it.",
    )


class DatabaseSettings(Section):
    """The records and the job queue: ``[database]``."""

    url: str | None = Field(default=None, description="An external PostgreSQL's URL; embedded if not given.")

    @field_validator("url")
    @classmethod
    def _is_a_url(cls, url: str | None) -> str | None:
        if url is not None and urlsplit(url).scheme not in ("postgresql", "postgres"):
            raise ValueError("expected a URL such as postgresql://user@host:5432/limner")
        return url


class LoggingSettings(Section):
    """The diagnostic log on standard error: ``[logging]``."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="The least level written.")
    format: Literal["json", "console"] = Field(default="json", description="JSON lines, or text for people.")
    identifiers: bool = Field(default=False, description="Whether UIDs may appear in logs; else they are left out.")


class Settings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(
        env_prefix="LIMNER__",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    data_folder: Path = Field(default=Path("data"), description="Spool, results, records and audit log lie under it.")
    model_repository: Path = Field(
        default=_REPOSITORY_FOLDER / "triton_models", description="The model repository that Triton serves."
    )
    listener: ListenerSettings = ListenerSettings()
    routing: RoutingSettings = RoutingSettings()
    triton: TritonSettings = TritonSettings()
    models: ModelsSettings = ModelsSettings()
    worker: WorkerSettings = WorkerSettings()
    database: DatabaseSettings = DatabaseSettings()
    shared_storage: SharedStorageSettings = SharedStorageSettings()
    logging: LoggingSettings = LoggingSettings()
    web: WebSettings = WebSettings()
    retention: RetentionSettings = RetentionSettings()
    pipeline: tuple[PipelineSettings, ...] = Field(default=(), description="The pipelines.")
    rule: tuple[RuleSettings, ...] = Field(default=(), description="The rules, in order.")
    destination: tuple[DestinationSettings, ...] = Field(default=(), description="The destinations.")
    archive: tuple[ArchiveSettings, ...] = Field(default=(), description="The archives that images are fetched from.")
    slots: tuple[SlotsSettings, ...] = Field(default=(), description="How many graphs run at once.")

    @property
    def least_free_bytes(self) -> int:
        """Free space below which retention removes before the time: never less than where the listener refuses."""
        low_water = self.listener.low_water_bytes
        asked = self.retention.least_free_bytes
        return 2 * low_water if asked is None else max(asked, low_water)

    @property
    def spool_folder(self) -> Path:
        """Received instances."""
        return self.data_folder / "spool"

    @property
    def results_folder(self) -> Path:
        """One folder a job: what the graph wrote."""
        return self.data_folder / "results"

    @property
    def audit_folder(self) -> Path:
        """The audit log."""
        return self.data_folder / "audit"

    @property
    def database_folder(self) -> Path:
        """The embedded PostgreSQL's files."""
        return self.data_folder / "database"

    @property
    def embeddings_folder(self) -> Path:
        """What a generalist's encoder gave for slices; it shows what is in them."""
        return self.data_folder / "embeddings"

    @property
    def run_folder(self) -> Path:
        """Sockets and scratch of the running server."""
        return self.data_folder / "run"

    @model_validator(mode="after")
    def _names_agree(self) -> Settings:
        for kind in ("pipeline", "rule", "destination", "archive", "slots"):
            names = [entry.name for entry in getattr(self, kind)]
            doubled = sorted({name for name in names if names.count(name) > 1})
            if doubled:
                raise ValueError(f"two [[{kind}]] tables have the same name: {', '.join(doubled)}")
        if INTERACTIVE in {*(entry.name for entry in self.pipeline), *(entry.name for entry in self.rule)}:
            raise ValueError(f"the name '{INTERACTIVE}' is kept for what is drawn through the API; choose another")
        pipelines = {entry.name: entry for entry in self.pipeline}
        destinations = {entry.name for entry in self.destination}
        self._check_sources()
        check_reporters(self.destination, [one.ae_title for one in self.listener.source])
        for rule in self.rule:
            if rule.pipeline not in pipelines:
                raise ValueError(
                    f"rule '{rule.name}' names the pipeline '{rule.pipeline}', and no [[pipeline]] has that name"
                )
            if "fractional" in rule.results and pipelines[rule.pipeline].prompt is not None:
                raise ValueError(
                    f"rule '{rule.name}' sends 'fractional', and the pipeline '{rule.pipeline}' is prompted: only an "
                    "nnU-Net has probabilities; take it out of results"
                )
            if rule.on_disagreement != "warn" and pipelines[rule.pipeline].generalist is None:
                raise ValueError(
                    f"rule '{rule.name}' says what happens on a disagreement, and the pipeline '{rule.pipeline}' has "
                    "no generalist that could disagree; add [pipeline.generalist] after it"
                )
            if rule.channels and pipelines[rule.pipeline].prompt is not None:
                raise ValueError(
                    f"rule '{rule.name}' binds channels, and the pipeline '{rule.pipeline}' is prompted: it finds its "
                    "images by what the prompt refers to; leave the channels out"
                )
            unknown = sorted(set(rule.destinations) - destinations)
            if unknown:
                raise ValueError(
                    f"rule '{rule.name}' names destinations without a [[destination]]: {', '.join(unknown)}"
                )
        return self

    def _check_sources(self) -> None:
        slots = {DEFAULT_SLOTS, *(entry.name for entry in self.slots)}
        for entry in self.pipeline:
            if entry.slots not in slots:
                raise ValueError(
                    f"the pipeline '{entry.name}' names the slots '{entry.slots}', and no [[slots]] has that name"
                )
        archives = {entry.name for entry in self.archive}
        for entry in self.pipeline:
            if entry.prompt is not None and entry.prompt.source is not None and entry.prompt.source not in archives:
                raise ValueError(
                    f"the pipeline '{entry.name}' fetches images from '{entry.prompt.source}', and no [[archive]] has "
                    "that name"
                )
        for table, asked in [
            ("routing", self.routing.ask),
            *(("listener.source", s.ask) for s in self.listener.source),
        ]:
            if asked is not None and asked not in archives:
                raise ValueError(f"[{table}] asks '{asked}' how much a series has, and no [[archive]] has that name")

    def pipeline_named(self, name: str) -> PipelineSettings:
        """Return the pipeline called `name`; KeyError if there is none."""
        return {entry.name: entry for entry in self.pipeline}[name]

    def results_of(self, rule: str) -> tuple[ResultKind, ...]:
        """Return what the rule called `rule` sends; Segmentations alone where the settings know no such rule."""
        return next((one.results for one in self.rule if one.name == rule), ("segmentation",))

    def no_result_of(self, rule: str) -> NoResult:
        """Return what the rule called `rule` sends where there is no result."""
        return next((one.no_result for one in self.rule if one.name == rule), "nothing")

    def knows_destination(self, name: str) -> bool:
        """Whether there is a destination called `name`: one may have gone from the settings since."""
        return any(entry.name == name for entry in self.destination)

    def destination_named(self, name: str) -> DestinationSettings:
        """Return the destination called `name`; KeyError if there is none."""
        return {entry.name: entry for entry in self.destination}[name]


def load_settings(path: Path | None) -> Settings:
    """Read the settings from a TOML file and the environment.

    Parameters
    ----------
    path
        The file; None for defaults and environment only. Relative folders in the file count from its own folder.

    Raises
    ------
    SettingsError
        If the file is missing, is no TOML, or holds a key or value that can't be used; the message names each.
    """
    if path is not None and not path.is_file():
        raise SettingsError(f"settings file {path} does not exist; write one (docs/quickstart.md has a sample)")

    class _FileSettings(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=path))

    try:
        settings: Settings = _FileSettings()
    except ValidationError as error:
        problems = [
            f"  {'.'.join(str(part) for part in one['loc']) or 'settings'}: {one['msg']}" for one in error.errors()
        ]
        raise SettingsError("the settings can't be used:\n" + "\n".join(problems)) from error
    except ValueError as error:  # not TOML
        raise SettingsError(f"settings file {path} is not TOML: {error}") from error
    base = path.resolve().parent if path is not None else Path.cwd()
    return _resolve_folders(settings, base)


def _resolve_folders(settings: Settings, base: Path) -> Settings:
    # python is made absolute without following symlinks: a virtual environment's interpreter is one
    triton = settings.triton.model_copy(update={"python": base / settings.triton.python})
    models = settings.models.model_copy(update={"exporter_python": base / settings.models.exporter_python})
    web = settings.web
    if web.token_file is not None:
        web = web.model_copy(update={"token_file": base / web.token_file})
    listener = settings.listener
    if listener.tls is not None:
        listener = listener.model_copy(update={"tls": listener.tls.counted_from(base)})
    return settings.model_copy(
        update={
            "listener": listener,
            "data_folder": (base / settings.data_folder).resolve(),
            "model_repository": (base / settings.model_repository).resolve(),
            "triton": triton,
            "models": models,
            "web": web,
            "shared_storage": settings.shared_storage.in_folder(base),
            "destination": tuple(one.in_folder(base).secured_in(base) for one in settings.destination),
            "archive": tuple(one.secured_in(base) for one in settings.archive),
        }
    )
