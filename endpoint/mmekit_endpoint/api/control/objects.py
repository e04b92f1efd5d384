"""S3's objects outlive the service: after each change, what moto has in memory is compared with the disk.

Kept are buckets (region, creation, versioning, tags) and of each object the current version (body, ETag,
metadata, storage class, checksums, tags). Older versions, uploads that are not complete, access lists, and
settings of buckets such as policies end with the service. A body that has been written is read from its file,
and takes no memory.
"""

from __future__ import annotations

import datetime
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from mmekit_endpoint.api.control.bodies import Bodies, Body, BucketRecord, ObjectRecord

#: Of a body that is copied.
_CHUNK_BYTES = 1024 * 1024

#: What is kept of moto's FakeKey, by its own names.
_ATTRIBUTES = (
    "_storage_class",
    "bucket_key_enabled",
    "checksum_algorithm",
    "checksum_parts",
    "checksum_type",
    "checksum_value",
    "encryption",
    "kms_key_id",
    "website_redirect_location",
)

logger = logging.getLogger(__name__)


class _Written(NamedTuple):
    """An object that is on disk."""

    #: moto's.
    key: Any
    record: ObjectRecord


class Mirror:
    """moto's S3 and its copy on disk. For one thread at a time, while no other changes anything in S3."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bodies: Bodies | None = None
        self._buckets: dict[str, BucketRecord] = {}
        #: Bucket → key → what was written.
        self._objects: dict[str, dict[str, _Written]] = {}

    def restore(self) -> None:
        """Open what is on disk and put it into moto. Called once, before any request.

        Raises
        ------
        StateUnusable
            When the index was written by a later mmekit, or is none.
        """
        bodies = self._bodies = Bodies(self._folder)
        buckets, objects = bodies.read()
        made = {record.name: _make_bucket(record) for record in buckets}
        self._buckets = {record.name: record for record in buckets}
        for record in objects:
            path = bodies.path(record.file)
            if not path.is_file() or path.stat().st_size != record.size:
                logger.error("s3://%s/%s is lost: its file %s is not whole", record.bucket, record.key, path)
                continue
            key = _make_key(made[record.bucket], record, Body(path))
            self._objects.setdefault(record.bucket, {})[record.key] = _Written(key, record)

    def write(self, *, with_tags: bool, copied: bool) -> None:
        """Write what has changed in moto to disk; ``with_tags``: also where only an object's tags have.

        ``copied``: new objects are copies of others.
        """
        if self._bodies is None:
            raise RuntimeError("restore has not been called")
        bodies = self._bodies
        buckets = {bucket.name: _bucket_record(bucket) for bucket in _moto_buckets()}
        live = {bucket.name: bucket.keys for bucket in _moto_buckets()}
        written: list[_Written] = []
        gone: list[ObjectRecord] = []
        replaced: list[str] = []
        for name in live.keys() | self._objects.keys():
            known = self._objects.get(name, {})
            written += _tagged(known) if with_tags else []
            new, no_more = _compare(known, live.get(name, {}))
            gone += no_more
            for key in new:
                if copied and key.checksum_type is None:
                    # moto gives a copy the checksum of its source's parts and does not say so: clients that
                    # compare it with the whole fail. A copy has none then.
                    key.checksum_algorithm = key.checksum_value = None
                written.append(_Written(key, _copy(bodies, name, key)))
                replaced += [known[key.name].record.file] if key.name in known else []
        bodies.write(
            buckets=[record for name, record in buckets.items() if self._buckets.get(name) != record],
            objects=[entry.record for entry in written],
            gone_buckets=self._buckets.keys() - buckets.keys(),
            gone_objects=[(record.bucket, record.key) for record in gone],
            unused=[*replaced, *(record.file for record in gone)],
        )
        self._buckets = buckets
        for record in gone:
            del self._objects[record.bucket][record.key]
        for entry in written:
            self._objects.setdefault(entry.record.bucket, {})[entry.record.key] = entry
            _read_from(entry.key, Body(bodies.path(entry.record.file)))


def _compare(known: dict[str, _Written], live: dict[str, list[Any]]) -> tuple[list[Any], list[ObjectRecord]]:
    """Return moto's objects of a bucket that have not been written, and what was written of others.

    dict's own items, since moto's look up each name again: a change among 10 000 objects takes a millisecond.
    """
    new = []
    gone = [known[name].record for name in known.keys() - live.keys()]
    for name, versions in dict.items(live):
        key = versions[-1] if versions else None
        entry = known.get(name)
        if entry is not None and entry.key is key:
            continue
        if hasattr(key, "_value_buffer"):
            new.append(key)
        elif entry is not None:  # the current version is the mark of a deletion
            gone.append(entry.record)
    return new, gone


def _tagged(known: dict[str, _Written]) -> list[_Written]:
    """Return what must be written again of objects that have other tags."""
    return [
        _Written(entry.key, msgspec.structs.replace(entry.record, tags=_tags(entry.key)))
        for entry in known.values()
        if entry.record.tags != _tags(entry.key)
    ]


def _copy(bodies: Bodies, bucket: str, key: Any) -> ObjectRecord:
    """Copy a body to a file of its own."""
    file = bodies.new_file(bucket, key.name)
    with key.lock, bodies.path(file).open("xb") as copy:
        key._value_buffer.seek(0)
        shutil.copyfileobj(key._value_buffer, copy, _CHUNK_BYTES)
        size = copy.tell()
        etag = key.etag.strip('"')
    return ObjectRecord(
        bucket=bucket,
        key=key.name,
        file=file,
        size=size,
        etag=etag,
        modified=_seconds(key.last_modified),
        metadata=dict(key.metadata),
        attributes={attribute: getattr(key, attribute) for attribute in _ATTRIBUTES},
        tags=_tags(key),
    )


def _moto() -> Any:
    """Return moto's module of S3. Any: its classes are used by names that its types do not have as public."""
    from moto.s3 import models

    return models


def _moto_buckets() -> Iterator[Any]:
    for by_partition in list(_moto().s3_backends.values()):
        for backend in list(by_partition.values()):
            yield from list(backend.buckets.values())


def _backend_of(account: str, region: str) -> Any:
    return _moto().s3_backends[account][_moto().get_partition(region)]


def _bucket_record(bucket: Any) -> BucketRecord:
    tagger = _backend_of(bucket.account_id, bucket.region_name).tagger
    return BucketRecord(
        name=bucket.name,
        account=bucket.account_id,
        region=bucket.region_name,
        created=_seconds(bucket.creation_date),
        versioning=bucket.versioning_status,
        tags=tagger.get_tag_dict_for_resource(bucket.arn),
    )


def _make_bucket(record: BucketRecord) -> Any:
    backend = _backend_of(record.account, record.region)
    bucket = _moto().FakeBucket(record.name, record.account, record.region)
    bucket.creation_date = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc)
    bucket.versioning_status = record.versioning
    backend.buckets[record.name] = bucket
    _set_tags(backend, bucket.arn, record.tags)
    return bucket


def _make_key(bucket: Any, record: ObjectRecord, body: Body) -> Any:
    key = _moto().FakeKey(
        name=record.key,
        value=b"",
        account_id=bucket.account_id,
        region_name=bucket.region_name,
        etag=record.etag,
        is_versioned=bucket.is_versioned,
        bucket_name=record.bucket,
    )
    key.contentsize = record.size
    # moto's own are naive, in UTC
    modified = datetime.datetime.fromtimestamp(record.modified, datetime.timezone.utc)
    key.last_modified = modified.replace(tzinfo=None)
    key.metadata.clear()
    key.metadata.update(record.metadata)
    for attribute, value in record.attributes.items():
        setattr(key, attribute, value)
    _read_from(key, body)
    bucket.keys.setlist(record.key, [key])
    _set_tags(_backend_of(bucket.account_id, bucket.region_name), key.arn, record.tags)
    return key


def _read_from(key: Any, body: Body) -> None:
    """Let moto read an object from a file, and free the memory of it and of the parts it was sent in."""
    with key.lock:
        buffer, key._value_buffer = key._value_buffer, body
        buffer.close()
        parts, key.multipart = key.multipart, None
    if parts is not None:
        parts.dispose()


def _tags(key: Any) -> dict[str, str]:
    tagger = _backend_of(key.account_id, key.region_name).tagger
    tags: dict[str, str] = tagger.get_tag_dict_for_resource(key.arn)
    return tags


def _set_tags(backend: Any, arn: str, tags: dict[str, str]) -> None:
    if tags:
        backend.tagger.tag_resource(arn, backend.tagger.convert_dict_to_tags_input(tags))


def _seconds(moment: datetime.datetime) -> float:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)
    return aware.timestamp()
