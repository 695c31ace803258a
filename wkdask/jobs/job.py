"""A job as plain values: everything that it reads, writes and makes, and by what it is recognised."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wkdask.geometry import BoundingBox, Mag, Vec3Int
from wkdask.jobs.events import Listener
from wkdask.jobs.plan import WritePlan, plan_again
from wkdask.jobs.tasks import UnitReport, publish_assembled_unit, publish_unit
from wkdask.jobs.windows import CallWindow, Stage, call_windows, stream_of
from wkdask.storage.protocol import StoredMag
from wkdask.storage.publish.jobs import JobFolder, take_built
from wkdask.storage.publish.manifest import Manifest

if TYPE_CHECKING:
    from distributed import Client

__all__ = [
    "Identity",
    "Job",
    "JobFolders",
    "MagPlace",
    "MagWrite",
    "WriteOptions",
    "publish_stage",
    "replace_stages",
]


@dataclass(frozen=True, slots=True)
class MagPlace:
    """Where a magnification is, as plain data: all that a handle needs to work anywhere."""

    dataset_path: str
    """The dataset's folder."""
    layer: str
    """The layer's name."""
    mag: Mag
    """Which of its mags."""
    store: StoredMag
    """The mag on disk."""
    read_only: str | None = None
    """Why nothing may be written there; None where it may."""

    @property
    def label(self) -> str:
        """Layer and mag, for messages."""
        return f"layer {self.layer!r} mag {self.mag}"


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How a write runs; none of these changes what is written."""

    client: Client | None = None
    """The cluster; None for the active client, or local threads where there is none."""
    durable: bool = True
    """Flush data to the disk before a cube counts as written."""
    verify: bool = False
    """Read every cube back before it is published."""
    task_memory: int | None = None
    """Bytes that one task needs, where the estimate is wrong."""
    resume: bool = False
    """Go on where an earlier run of the same job stopped, if there is one."""
    job: str | None = None
    """A name by which an earlier run is found; None for the name of the array."""
    retries: int | None = None
    """How often a task that failed is tried again; None for the engine's own number."""
    resources: Mapping[str, float] | None = None
    """What of a worker each task occupies, such as ``{"GPU": 1}``; None for a thread only."""
    in_place: bool | None = None
    """Whether what is written may have been computed from what it replaces; None to go by the graph."""
    overwrite: bool = True
    """Whether cubes, and unfinished work, of another job may be replaced; False refuses that."""
    listeners: Sequence[Listener] = ()
    """Called with the events of the job."""


@dataclass(frozen=True, slots=True)
class MagWrite:
    """A mag that a job writes, and what it does to it."""

    place: MagPlace
    """The mag."""
    box: BoundingBox
    """What the job may write: absolute, in voxels of the mag."""
    new: bool = False
    """Whether the job makes the mag: it is listed in the properties when it is whole."""
    in_place: bool = False
    """Whether the job reads, or may read, what it replaces: all cubes are built before the first is replaced."""
    unit: Vec3Int | None = None
    """Voxels of a unit in this mag, where it is written in place; None for that of the job's plan."""

    @property
    def store(self) -> StoredMag:
        """The mag on disk."""
        return self.place.store

    @property
    def key(self) -> tuple[str, str, Mag]:
        """Dataset, layer and mag: what reports are merged by."""
        return (self.place.dataset_path, self.place.layer, self.place.mag)


@dataclass(frozen=True, slots=True)
class Identity:
    """By what a job is recognised in another process."""

    key: str
    """The same for the same work on the same mag: what is computed, where, and how it is cut."""
    name: str
    """For people: what is written."""
    layer_box: BoundingBox | None = None
    """The layer's box before the job, in voxels of mag 1, where that says what the job does: a run that stopped has
    changed it."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job's identity and extent: everything that it reads, writes and makes, whatever the public call."""

    writes: tuple[MagWrite, ...]
    """The mags that it writes; the first is its own, by whose grid it is cut into units."""
    plan: WritePlan
    """Cubes, units, windows."""
    action: str = "writing"
    """Verb for messages."""
    identity: Identity | None = None
    """By what a later call recognises it; None for a job that cannot be resumed."""
    reads: tuple[StoredMag, ...] = ()
    """The mags that it reads."""
    durable: bool = True
    """Whether data are flushed to the disk before a cube counts as written."""
    verify: bool = False
    """Whether every cube is read back before it is published."""
    resume: bool = False
    """Whether to continue a previous run of it."""
    overwrite: bool = True
    """Whether it may replace cubes, and unfinished work, of another job."""
    listed_cubes: int | None = None
    """Cubes that the job touches, where those are listed and most of the plan's box is empty."""
    private_nbytes: int = 0
    """Bytes of other private voxels that exist at once, beside the cubes themselves."""
    grows_box: bool = True
    """Whether what it writes belongs into the layer's box: not where it only stores voxels in another way."""
    builds_first: bool = False
    """Whether much is built before anything is published, whatever else says so. If the user did not ask to
    resume, a failure leaves nothing of that: it may fill a disk."""
    part: Vec3Int | None = None
    """Voxels of a part, where the job's tasks are not cut as the plan says."""
    inputs: Any = None
    """The dask collection that it computes, whose persisted parts are waited for before a cube is replaced."""

    @property
    def place(self) -> MagPlace:
        """The job's own mag."""
        return self.writes[0].place

    @property
    def dataset_path(self) -> str:
        """The dataset's folder."""
        return self.place.dataset_path

    @property
    def layer(self) -> str:
        """The layer's name."""
        return self.place.layer

    @property
    def mag(self) -> Mag:
        """The mag that is written."""
        return self.place.mag

    @property
    def store(self) -> StoredMag:
        """The mag on disk."""
        return self.place.store

    @property
    def label(self) -> str:
        """Layer and mag, for messages."""
        return self.place.label

    @property
    def in_place(self) -> bool:
        """Whether one of the mags is replaced by what was, or may have been, read from it."""
        return any(write.in_place for write in self.writes)

    @property
    def staged(self) -> bool:
        """Whether all cubes of a mag are built in a private mag before any of them is published."""
        return self.in_place or self.plan.part is not None

    @property
    def num_cubes(self) -> int:
        """Cubes that the job touches."""
        return self.plan.num_cubes if self.listed_cubes is None else self.listed_cubes

    @property
    def nbytes(self) -> int:
        """Bytes of the voxels that the job writes."""
        if self.listed_cubes is None:
            return self.plan.nbytes
        return self.listed_cubes * self.store.spec.cube_nbytes

    @property
    def all_cubes(self) -> int:
        """Cubes that the job touches, in all mags that it writes."""
        others = (len(write.store.spec.grid.cubes(write.box)) for write in self.writes[1:])
        return self.num_cubes + sum(others)

    @property
    def all_nbytes(self) -> int:
        """Bytes of the voxels that the job writes, in all mags."""
        others = (write.box.volume() * write.store.spec.bytes_per_voxel for write in self.writes[1:])
        return self.nbytes + sum(others)

    @classmethod
    def of(
        cls,
        place: MagPlace,
        plan: WritePlan,
        action: str,
        options: WriteOptions,
        *,
        identity: Identity | None = None,
        others: Iterable[MagWrite] = (),
        reads: Iterable[StoredMag] = (),
        new: bool = False,
        in_place: bool = False,
        **more: Any,
    ) -> Job:
        """Return the job that carries out a plan at a place.

        Parameters
        ----------
        place, plan
            The job's own mag, and how it is cut.
        action, options, identity, reads
            As the fields.
        others
            Further mags that it writes.
        new, in_place
            As in `MagWrite`, for its own mag.
        **more
            Further fields.
        """
        own = MagWrite(place, plan.box, new=new, in_place=in_place, unit=plan.unit.shape)
        return cls(
            writes=(own, *others),
            plan=plan,
            action=action,
            identity=identity,
            reads=tuple(reads),
            durable=options.durable,
            verify=options.verify,
            resume=options.resume,
            overwrite=options.overwrite,
            **more,
        )

    def manifests(self) -> list[Manifest | None]:
        """Return the job's manifest for each mag that it writes; None for each if the job needs none.

        It needs one if a later call can recognise it, if it makes a mag, or if it replaces what it read.
        """
        named = self.identity
        if named is None and not self.in_place and not any(write.new for write in self.writes):
            return [None] * len(self.writes)
        part = None if self.plan.part is None else self.plan.part.shape
        part = self.part if part is None else part
        key = f"once-{uuid.uuid4().hex}" if named is None else named.key
        resumable = (
            named is not None and self.durable and (self.resume or not (self.staged or self.builds_first))
        )
        # With more than one mag, or a pyramid after the write, what is left lies in the folders of several mags.
        goes_on = len(self.writes) > 1
        return [
            Manifest(
                key=key,
                name=self.label if named is None else named.name,
                action=self.action,
                layer=write.place.layer,
                mag=write.place.mag,
                box=write.box,
                unit=write.unit or write.store.spec.shard_shape,
                part=part if role == 0 else None,
                role=role,
                resumable=resumable,
                in_place=tuple(number for number, each in enumerate(self.writes) if each.in_place),
                creates=write.new,
                goes_on=goes_on,
                state=write.store.fingerprint(write.box) if write.in_place else "",
                layer_box=None if named is None else named.layer_box,
            )
            for role, write in enumerate(self.writes)
        ]


@dataclass(frozen=True, slots=True)
class JobFolders:
    """The private folders of a job: one in each mag that it writes."""

    main: str
    """In the job's own mag."""
    others: dict[str, str]
    """In the further mags, by the path of the mag."""

    def of(self, store: StoredMag) -> str:
        """Return the folder in a mag."""
        return self.others.get(store.path, self.main)

    @classmethod
    def at(cls, job: Job, folders: Sequence[JobFolder]) -> JobFolders:
        """Return the folders of a job, one for each mag that it writes."""
        paths = [folder.path for folder in folders]
        return cls(
            paths[0],
            {write.store.path: path for write, path in zip(job.writes[1:], paths[1:], strict=True)},
        )


def replace_stages(job: Job, folders: JobFolders, first_stream: int = 1) -> list[Stage]:
    """Return the second phase of a job: a stage for each mag of which all cubes were built before.

    Parameters
    ----------
    job
        The job; the cubes are in the private mags ``staged`` in its folders.
    folders
        The job's private folders.
    first_stream
        The stream of the first of these stages.
    """
    found = [number for number, write in enumerate(job.writes) if write.in_place]
    if job.plan.part is not None and 0 not in found:
        return [publish_stage(job, folders, 0, first_stream)]
    return [publish_stage(job, folders, number, first_stream + n) for n, number in enumerate(found)]


def publish_stage(job: Job, folders: JobFolders, number: int, stream_number: int) -> Stage:
    """Return the stage that publishes what a job has built in the private mag ``staged`` of one of its mags.

    Parameters
    ----------
    job
        The job.
    folders
        Its private folders.
    number
        Which of its mags.
    stream_number
        The number of the stage's stream.
    """
    write = job.writes[number]
    store, folder = write.store, folders.of(write.store)
    plan = job.plan
    if number:
        plan = plan_again(store.spec, write.box, write.unit or store.spec.shard_shape)
    stream = stream_of(plan, stream_number)
    publish = publish_unit if plan.part is None else publish_assembled_unit
    other = None if number == 0 else write.key

    def windows() -> Iterator[CallWindow]:
        built = take_built(store, folder)
        yield from call_windows(
            plan,
            folder,
            "publish",
            lambda box: (publish_of, publish, other, store, built, folder, box, job.durable),
            stream,
        )

    return Stage(len(stream), windows(), (stream,), number if write.in_place else None)


def publish_of(
    publish: Callable[..., UnitReport], other: tuple[str, str, Mag] | None, store: StoredMag, *arguments: Any
) -> UnitReport:
    """Publish what was built of a unit; what goes into a further mag of the job is reported as such."""
    report = publish(store, *arguments)
    return report if other is None else report.of_other_mag(*other)
