"""Archives become folders, or nothing is written: round trips, hostile members, bombs, damage."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmekit.archive.unpack import unpack
from mmekit.errors import InvalidModel
from tests.archive.support import (
    FORMATS,
    MIB,
    archive_bytes,
    ended,
    noise,
    tar_bytes,
    tar_info,
    tree,
    written,
    zip_bytes,
)


def refused(tmp_path: Path, content: bytes, max_bytes: int = MIB) -> str:
    """Unpack, which must fail and leave nothing but the archive; return why."""
    room = tmp_path / "room"
    room.mkdir(exist_ok=True)
    archive = written(tmp_path, content)
    with pytest.raises(InvalidModel) as caught:
        unpack(archive, "the/url.mar", room / "model", max_bytes)
    assert list(room.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.archive", "room"]
    assert caught.value.message.startswith("The archive the/url.mar cannot be used: ")
    assert "Nothing was unpacked." in caught.value.message
    return caught.value.message


def unpacked(tmp_path: Path, content: bytes, max_bytes: int = MIB) -> Path:
    unpack(written(tmp_path, content), "the/url.mar", tmp_path / "model", max_bytes)
    return tmp_path / "model"


# --- round trips

_NAMES = st.text("abcé .-_", min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..") and not name.startswith("._")
)
_TREES = st.dictionaries(
    _NAMES,
    st.recursive(
        st.binary(max_size=3000),
        lambda below: st.dictionaries(_NAMES, below, min_size=1, max_size=3),
        max_leaves=6,
    ),
    min_size=1,
    max_size=4,
)


def _flat(files: dict[str, object], above: str = "") -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name, value in files.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{above}{name}/")
        else:
            assert isinstance(value, bytes)
            found[above + name] = value
    return found


@pytest.mark.parametrize("form", FORMATS)
@given(files=_TREES)
@settings(max_examples=40)
def test_what_was_packed_is_unpacked(form: str, files: dict[str, object]) -> None:
    flat = _flat(files)
    with tempfile.TemporaryDirectory() as folder:
        assert tree(unpacked(Path(folder), archive_bytes(form, flat.items()))) == flat


@pytest.mark.parametrize("form", FORMATS)
def test_leading_dots_and_empty_parts_of_a_path_do_not_count(tmp_path: Path, form: str) -> None:
    content = archive_bytes(form, [("./a.txt", b"1"), ("b//c.txt", b"2"), ("b/./d.txt", b"3")])
    assert tree(unpacked(tmp_path, content)) == {"a.txt": b"1", "b/c.txt": b"2", "b/d.txt": b"3"}


@pytest.mark.parametrize("form", FORMATS)
def test_what_archivers_leave_behind_is_not_unpacked(tmp_path: Path, form: str) -> None:
    names = ["__MACOSX/x", "._model.pkl", "code/.DS_Store", "code/._a.py", "code/a.py", ".hidden"]
    content = archive_bytes(form, [(name, b"x") for name in names])
    assert set(tree(unpacked(tmp_path, content))) == {"code/a.py", ".hidden"}


def test_folders_without_files_are_made_and_tars_own_top_folder_is_no_member(tmp_path: Path) -> None:
    members = [(tar_info("./", tarfile.DIRTYPE, mode=0o700), b""), (tar_info("empty", tarfile.DIRTYPE), b"")]
    assert (unpacked(tmp_path, ended(tar_bytes(members))) / "empty").is_dir()


@pytest.mark.parametrize("form", FORMATS)
def test_files_are_executable_or_plain_whatever_mode_was_packed(tmp_path: Path, form: str) -> None:
    modes = {"run.sh": 0o6755, "data": 0o600, "all": 0o4666, "none": 0}
    if form == "zip":
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name, mode in modes.items():
                info = zipfile.ZipInfo(name)
                info.external_attr = (stat.S_IFREG | mode) << 16
                archive.writestr(info, b"x")
        content = out.getvalue()
    else:
        content = ended(
            tar_bytes([(tar_info(name, size=1, mode=mode), b"x") for name, mode in modes.items()])
        )
        content = gzip.compress(content) if form == "tar.gz" else content
    umask = os.umask(0o022)
    try:
        folder = unpacked(tmp_path, content)
    finally:
        os.umask(umask)
    found = {name: stat.S_IMODE((folder / name).stat().st_mode) for name in modes}
    assert found == {"run.sh": 0o755, "data": 0o644, "all": 0o644, "none": 0o644}


def test_a_zip64_archive_is_unpacked(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, archive.open("a.txt", "w", force_zip64=True) as member:
        member.write(b"content")
    plain = out.getvalue()
    end = plain.rindex(b"PK\5\6")
    count, size, start = struct.unpack_from("<HLL", plain, end + 10)
    record = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
    assert tree(unpacked(tmp_path, plain[:end] + record + locator + plain[end:])) == {"a.txt": b"content"}


def test_a_zip_archive_with_a_comment_is_unpacked(tmp_path: Path) -> None:
    out = io.BytesIO(zip_bytes([("a.txt", b"1")]))
    with zipfile.ZipFile(out, "a") as archive:
        archive.comment = b"made by hand"
    assert tree(unpacked(tmp_path, out.getvalue())) == {"a.txt": b"1"}


# --- members that would be written elsewhere

HOSTILE_NAMES = [
    "/etc/cron.d/x",
    "//x",
    "../x",
    "a/../../x",
    "a/..",
    "..",
    "..\\x",
    "a\\b",
    "\\\\host\\share",
    "C:/x",
    "c:x",
    "__MACOSX/../../x",
    "a/" + "b" * 256,
    "a/" * 2100 + "b",
    "a/" * 100 + "b",
]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=lambda name: name[:20])
def test_a_member_with_a_path_that_leads_elsewhere_is_refused(tmp_path: Path, form: str, name: str) -> None:
    text = refused(tmp_path, archive_bytes(form, [("good.txt", b"1"), (name, b"2"), ("z.txt", b"3")]))
    assert "its member" in text


def test_a_zip_member_with_a_zero_byte_in_its_path_is_refused(tmp_path: Path) -> None:
    content = zip_bytes([("good_bad", b"1")]).replace(b"good_bad", b"good\0bad")
    assert "zero byte" in refused(tmp_path, content)


@pytest.mark.parametrize("form", FORMATS)
@given(
    names=st.lists(
        st.text(
            st.characters(exclude_categories=["Cs"]) | st.sampled_from("./\\:\0"), min_size=1, max_size=12
        ),
        min_size=1,
        max_size=4,
        unique=True,
    )
)
@settings(max_examples=150)
def test_whatever_the_names_are_nothing_is_written_outside(form: str, names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        outer = Path(folder, "outer")
        room = outer / "room"
        room.mkdir(parents=True)
        archive = written(Path(folder), archive_bytes(form, [(name, b"x") for name in names]))
        try:
            unpack(archive, "the/url.mar", room / "model", MIB)
        except InvalidModel:
            assert list(room.iterdir()) == []
        else:
            assert [path.name for path in room.iterdir()] == ["model"]
        assert [path.name for path in outer.iterdir()] == ["room"]
        assert sorted(path.name for path in Path(folder).iterdir()) == ["model.archive", "outer"]


# --- what is no plain file

KINDS = [
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.FIFOTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
]


@pytest.mark.parametrize("kind", KINDS)
def test_links_pipes_and_devices_in_a_tar_archive_are_refused(tmp_path: Path, kind: bytes) -> None:
    text = refused(tmp_path, ended(tar_bytes([("good", b"1"), (tar_info("odd", kind), b"")])))
    assert "'odd'" in text
    assert "expected files and folders" in text


def test_a_link_and_a_file_through_it_are_refused(tmp_path: Path) -> None:
    link = tar_info("sub", tarfile.SYMTYPE)
    link.linkname = str(tmp_path)
    refused(tmp_path, ended(tar_bytes([(link, b""), ("sub/escaped", b"x")])))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK])
def test_links_pipes_and_devices_in_a_zip_archive_are_refused(tmp_path: Path, kind: int) -> None:
    text = refused(tmp_path, zip_bytes([("odd", b"/etc/passwd")], kind | 0o777))
    assert "expected files and folders" in text


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "names", [("a", "a"), ("a", "./a"), ("a", "a/b"), ("a/b", "a"), ("a/b", "a/b/c/d")], ids=str
)
@pytest.mark.filterwarnings("ignore:Duplicate name")  # zipfile's, when the archive is made
def test_two_members_at_one_path_are_refused(tmp_path: Path, form: str, names: tuple[str, str]) -> None:
    text = refused(tmp_path, archive_bytes(form, [(name, b"x") for name in names]))
    assert "twice" in text or "as a file and as a folder" in text


def test_an_encrypted_zip_archive_is_refused(tmp_path: Path) -> None:
    content = bytearray(zip_bytes([("secret.txt", b"1")]))
    for signature, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(signature) + at] |= 1
    assert "'secret.txt' is encrypted" in refused(tmp_path, bytes(content))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_member_compressed_otherwise_is_refused(tmp_path: Path, method: int) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr("a.txt", b"1" * 100)
    assert "compressed by method" in refused(tmp_path, out.getvalue())


# --- bombs


@pytest.mark.parametrize("form", FORMATS)
def test_more_bytes_than_allowed_are_refused_and_just_as_many_are_not(tmp_path: Path, form: str) -> None:
    content = archive_bytes(form, [("a", bytes(600)), ("b", bytes(400))])
    assert "MMEKIT_MAX_UNPACKED_BYTES" in refused(tmp_path, content, max_bytes=999)
    (tmp_path / "fits").mkdir()
    unpacked(tmp_path / "fits", content, max_bytes=1000)


@pytest.mark.parametrize("form", FORMATS)
def test_what_unpacks_to_a_thousand_times_its_size_is_stopped_by_the_limit(tmp_path: Path, form: str) -> None:
    refused(tmp_path, archive_bytes(form, [("zeros", bytes(20 * MIB))]))


def test_a_zip_member_that_declares_less_than_it_has_is_refused(tmp_path: Path) -> None:
    honest = zip_bytes([("zeros", bytes(5 * MIB))])
    size = struct.pack("<L", 5 * MIB)
    assert honest.count(size) == 2
    assert "damaged" in refused(tmp_path, honest.replace(size, struct.pack("<L", 1000)))


def test_more_members_than_allowed_are_refused_before_any_is_read(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(100_001):
            archive.writestr(zipfile.ZipInfo(f"{number}"), b"")
    assert "more than 100000 members" in refused(tmp_path, out.getvalue())


def test_more_members_than_allowed_in_a_tar_archive_are_refused(tmp_path: Path) -> None:
    one = tar_info("__MACOSX/a").tobuf()  # left out, and still counted
    assert "more than 100000 members" in refused(tmp_path, gzip.compress(ended(one * 100_001), 1))


def test_few_members_that_make_very_many_folders_are_refused(tmp_path: Path) -> None:
    files = [(f"{number}/" + "a/" * 98 + "b", b"") for number in range(102)]
    assert "more than 10000 folders" in refused(tmp_path, archive_bytes("zip", files))


def test_a_list_of_members_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    content = bytearray(zip_bytes([("a", b"1")]))
    struct.pack_into("<L", content, content.rindex(b"PK\5\6") + 12, 0x7FFFFFFF)
    assert "claims 2147483647 bytes" in refused(tmp_path, bytes(content))


@pytest.mark.parametrize(
    "kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK]
)
def test_a_tar_header_that_asks_for_gigabytes_is_refused(tmp_path: Path, kind: bytes) -> None:
    header = tar_info("x", kind, size=3 * 1024 * MIB).tobuf(tarfile.GNU_FORMAT)
    assert "a header in it asks for 3221225472 bytes" in refused(tmp_path, ended(header + bytes(4 * MIB)))


def test_tar_headers_one_after_the_other_without_end_are_refused(tmp_path: Path) -> None:
    record = b"12 comment=x"[:11] + b"\n"
    header = tar_info("x", tarfile.XHDTYPE, size=len(record)).tobuf() + record.ljust(512, b"\0")
    refused(tmp_path, gzip.compress(ended(header * 50_000), 1))


def pax_member(content: bytes, kind: bytes = tarfile.XHDTYPE, name: str = "a") -> bytes:
    """An extended header with this content, and an empty file."""
    header = tar_info("x", kind, size=len(content)).tobuf(tarfile.USTAR_FORMAT)
    return header + content + bytes(-len(content) % 512) + tar_info(name).tobuf()


def pax_record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return str(length).encode() + rest


#: Those with many digits or repetitions take tarfile before 3.11.10 and 3.12.6 seconds to minutes.
SLOW_HEADERS = {
    "digits": b"1" * 250_000,
    "digits in a value": pax_record(b"comment", b"1" * 250_000),
    "digits after the records": pax_record(b"comment", b"x") + b"\0" + b"1" * 250_000,
    "character sets": b"1 hdrcharset=" * 19_000,
    "character sets after the records": pax_record(b"comment", b"x") + b"\0" + b"1 hdrcharset=" * 19_000,
    "records inside each other": b"2 " * 60_000 + b"=" * 2,
    "a length of many digits": b"0" * 1900 + b"9 a=bcd\n",
    "a length beyond the header": b"90 a=b\n",
    "a length that ends before the value": b"5 abc=d\n",
    "no key": b"5 =a\n",
    "no line end": b"7 a=bcd",
}


@pytest.mark.parametrize("content", SLOW_HEADERS.values(), ids=SLOW_HEADERS)
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE])
def test_an_extended_header_that_would_keep_tarfile_busy_is_refused(
    tmp_path: Path, content: bytes, kind: bytes
) -> None:
    start = time.process_time()
    message = refused(tmp_path, gzip.compress(ended(pax_member(content, kind))))
    assert "extended header" in message
    assert time.process_time() - start < 1


def test_extended_headers_with_long_names_and_attributes_are_read(tmp_path: Path) -> None:
    name = "/".join(["1234567890" * 25] * 15)
    records = pax_record(b"path", name.encode()) + pax_record(b"mtime", b"1700000000.123456789")
    records += pax_record(b"SCHILY.xattr.user.any", bytes(range(256)) * 250) + pax_record(b"comment", b"")
    archive = pax_member(pax_record(b"comment", b"0123456789abcdef"), tarfile.XGLTYPE, "b")
    archive += pax_member(records) + pax_member(pax_record(b"path", b"c" * 200) + b"\0")
    assert tree(unpacked(tmp_path, ended(archive))).keys() == {name, "b", "c" * 200}


def test_headers_of_gigabytes_are_refused(tmp_path: Path) -> None:
    member = pax_member(b"x" * 250_000, tarfile.GNUTYPE_LONGLINK, "__MACOSX/a")
    assert "more than 268435456 bytes of headers" in refused(tmp_path, gzip.compress(member) * 1100)


def test_what_a_global_header_says_is_not_copied_to_each_member(tmp_path: Path) -> None:
    records = b"".join(pax_record(b"%05d" % number, b"") for number in range(20_000))
    archive = pax_member(records, tarfile.XGLTYPE) + tar_info("__MACOSX/b").tobuf() * 10_000
    start = time.process_time()
    assert tree(unpacked(tmp_path, ended(archive))).keys() == {"a"}
    assert time.process_time() - start < 5


def test_a_sparse_file_of_very_many_pieces_is_read(tmp_path: Path) -> None:
    pieces = b",".join(b"%d,0" % offset for offset in range(16, 16 * 25_000, 16))
    records = pax_record(b"GNU.sparse.size", b"%d" % MIB) + pax_record(b"GNU.sparse.map", pieces)
    assert tree(unpacked(tmp_path, ended(pax_member(records)))) == {"a": bytes(MIB)}


@pytest.mark.parametrize("size", [b"\xff" * 12, b"\xff" + b"\0" * 11, b"-0000000512\0"])
def test_a_negative_size_in_a_tar_header_is_refused(tmp_path: Path, size: bytes) -> None:
    header = bytearray(tar_info("x").tobuf())
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    refused(
        tmp_path,
        ended(tar_bytes([("good", b"1" * 512)]) + bytes(header)),
    )


def test_a_sparse_file_counts_with_what_it_unpacks_to(tmp_path: Path) -> None:
    archive = tmp_path / "made.tar"
    with (tmp_path / "hole").open("wb") as hole:
        hole.truncate(50 * MIB)
        hole.seek(0, os.SEEK_END)
        hole.write(b"end")
    made = subprocess.run(["tar", "--sparse", "-C", tmp_path, "-cf", archive, "hole"], check=False)
    assert made.returncode == 0
    content = archive.read_bytes()
    assert len(content) < MIB
    archive.unlink()
    (tmp_path / "hole").unlink()
    assert "MMEKIT_MAX_UNPACKED_BYTES" in refused(tmp_path, content)


# --- what is damaged, or no archive at all

SMALL = [("a/service.py", b"x = 1\n" * 50), ("b", b"")]


@pytest.mark.parametrize("form", FORMATS)
def test_an_archive_cut_short_anywhere_is_refused(tmp_path: Path, form: str) -> None:
    content = archive_bytes(form, SMALL)
    if form == "tar":
        content = content[:-512]  # the second zero block may be missing
    for length in range(len(content)):
        refused(tmp_path, content[:length])
    unpacked(tmp_path, content)


@pytest.mark.parametrize("form", FORMATS)
def test_an_archive_with_any_byte_changed_is_unpacked_or_refused(tmp_path: Path, form: str) -> None:
    content = archive_bytes(form, SMALL)
    for at in range(len(content)):
        changed = bytearray(content)
        changed[at] ^= (0x01, 0x80, 0xFF)[at % 3]
        room = tmp_path / f"{at}"
        room.mkdir()
        try:
            unpack(written(tmp_path, bytes(changed)), "the/url.mar", room / "model", MIB)
        except InvalidModel:
            assert list(room.iterdir()) == []


@pytest.mark.parametrize("form", ["zip", "tar.gz"])
def test_content_that_was_changed_is_noticed(tmp_path: Path, form: str) -> None:
    # Stored as it is: there is no redundancy.
    content = bytearray(archive_bytes(form, [("a", noise(5000))]))
    content[2000] ^= 1
    assert "damaged" in refused(tmp_path, bytes(content))


@given(
    st.sampled_from([b"PK\3\4", b"PK\5\6", b"\x1f\x8b\x08\0", b"", bytes(257) + b"ustar\x0000"]),
    st.binary(max_size=700),
)
@settings(max_examples=200)
def test_bytes_that_only_start_like_an_archive_are_refused(start: bytes, rest: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        refused(Path(folder), start + rest)


@given(st.binary(min_size=1, max_size=2000))
@settings(max_examples=100)
def test_a_gzip_file_of_anything_is_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        refused(Path(folder), gzip.compress(content))


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"BZh91AY", b"\xfd7zXZ\0"])
def test_a_file_that_is_no_archive_is_refused_with_what_it_is(tmp_path: Path, content: bytes) -> None:
    text = refused(tmp_path, content)
    assert "expected a zip (.mar, .model, .zip) or a tar archive (.tar.gz, .tgz, .tar), found" in text
    assert "an empty file" in text or repr(content[:8]) in text


@pytest.mark.parametrize("form", FORMATS)
def test_an_archive_without_a_file_is_refused(tmp_path: Path, form: str) -> None:
    content = zip_bytes([]) if form == "zip" else ended(tar_bytes([(tar_info("./", tarfile.DIRTYPE), b"")]))
    content = gzip.compress(content) if form == "tar.gz" else content
    assert "it is empty" in refused(tmp_path, content)


def test_data_after_the_end_of_a_tar_archive_is_refused(tmp_path: Path) -> None:
    content = ended(tar_bytes([("a", b"1")]))
    assert "follows the end" in refused(tmp_path, content + b"more")
    assert "follows the end" in refused(tmp_path, gzip.compress(content + bytes(100 * MIB), 9))


def test_a_gzip_checksum_that_is_wrong_is_noticed(tmp_path: Path) -> None:
    content = bytearray(archive_bytes("tar.gz", SMALL))
    content[-5] ^= 1
    assert "damaged" in refused(tmp_path, bytes(content))


def test_an_archive_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    with pytest.raises(InvalidModel, match="cannot be read: No such file"):
        unpack(tmp_path / "gone", "gone", tmp_path / "room" / "model", MIB)
    assert list((tmp_path / "room").iterdir()) == []


# --- the disk

_ON_A_SMALL_DISK = """
import pathlib, sys
from mmekit.archive.unpack import unpack
from mmekit.errors import OutOfResources
room = pathlib.Path(sys.argv[1])
try:
    unpack(pathlib.Path(sys.argv[2]), "the/url.mar", room / "model", 2**40)
except OutOfResources as error:
    print(error.message)
print([path.name for path in room.iterdir()])
"""


@pytest.mark.parametrize("form", FORMATS)
def test_a_full_disk_is_out_of_resources_and_is_given_back(tmp_path: Path, form: str) -> None:
    archive = written(tmp_path, archive_bytes(form, [("a", noise(100_000)), ("b", bytes(MIB))]))
    room = tmp_path / "room"
    room.mkdir()
    script = f'mount -t tmpfs -o size=512k tmpfs {room} && exec "$@"'
    command = [
        "unshare",
        "-rm",
        "sh",
        "-c",
        script,
        "sh",
        sys.executable,
        "-c",
        _ON_A_SMALL_DISK,
        room,
        archive,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.stderr.startswith(("unshare:", "mount:")):
        pytest.skip(f"this system lets nobody mount a small disk: {done.stderr}")
    assert done.returncode == 0, done.stderr
    message, left = done.stdout.splitlines()
    assert message.startswith(
        "Out of resources: the/url.mar cannot be unpacked: No space left on device after"
    )
    assert "bytes free" in message
    assert left == "[]"


def test_deflated_bytes_that_are_not_deflate_are_refused(tmp_path: Path) -> None:
    packed = zlib.compress(b"1" * 1000)[2:-4]
    content = zip_bytes([("a", b"1" * 1000)])
    if packed in content:
        content = content.replace(packed, b"\xff" * len(packed))
    assert "damaged" in refused(tmp_path, content)
