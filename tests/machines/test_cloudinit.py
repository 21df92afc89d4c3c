"""cloud-init of the local cloud: what of the user data comes to a machine's disk, and how often."""

from __future__ import annotations

import base64
import gzip
import stat
from pathlib import Path

import pytest

from localcloud.machines.cloudinit import CloudInit, UserDataError, files_of, parse, shell_script
from localcloud.machines.paths import MachinePaths

CONTENT = "line one\nzeile zwei: ü\n"


class Disk:
    """A machine's disk with cloud-init on it."""

    def __init__(self, root: Path, run: Path) -> None:
        self.root = root
        self.paths = MachinePaths(root, run)
        self.paths.prepare()
        self.console: list[str] = []

    def boot(self, user_data: str) -> CloudInit:
        init = CloudInit(self.paths, user_data, self.console.append)
        init.begin()
        init.write_files()
        init.write_files(deferred=True)
        return init

    def mode(self, path: str) -> int:
        return stat.S_IMODE((self.root / path).stat().st_mode)


@pytest.fixture
def disk(tmp_path: Path, run_folder: Path) -> Disk:
    root = tmp_path / "root"
    root.mkdir()
    return Disk(root, run_folder)


def user_data(*entries: str) -> str:
    return "#cloud-config\nwrite_files:\n" + "".join(f"- {entry}\n" for entry in entries)


@pytest.mark.parametrize(
    ("encoding", "encoded"),
    [
        ("b64", base64.b64encode(CONTENT.encode())),
        ("base64", base64.b64encode(CONTENT.encode())),
        ("gz+b64", base64.b64encode(gzip.compress(CONTENT.encode()))),
        ("gzip+base64", base64.b64encode(gzip.compress(CONTENT.encode()))),
    ],
)
def test_a_content_is_decoded(disk: Disk, encoding: str, encoded: bytes) -> None:
    disk.boot(user_data(f'{{path: /etc/x, encoding: {encoding}, content: "{encoded.decode()}"}}'))
    assert (disk.root / "etc/x").read_text() == CONTENT


def test_a_gzip_content_may_be_binary(disk: Disk) -> None:
    binary = base64.b64encode(gzip.compress(CONTENT.encode())).decode()
    disk.boot(user_data(f"{{path: /etc/x, encoding: gz, content: !!binary {binary}}}"))
    assert (disk.root / "etc/x").read_text() == CONTENT


def test_permissions_and_owner_are_kept(disk: Disk) -> None:
    init = disk.boot(
        user_data(
            '{path: /a, permissions: "0400", owner: "me:us"}', "{path: /b, permissions: 0755}", "{path: /c}"
        )
    )
    assert [disk.mode(name) for name in "abc"] == [0o400, 0o755, 0o644]
    assert init.owners == {"/a": "me:us", "/b": "root:root", "/c": "root:root"}


def test_a_file_may_be_appended_to(disk: Disk) -> None:
    disk.boot(user_data("{path: /a, content: one}", "{path: /a, content: two, append: true}"))
    assert (disk.root / "a").read_text() == "onetwo"


def test_a_deferred_file_is_written_last(disk: Disk) -> None:
    disk.boot(user_data("{path: /a, content: late, defer: true}", "{path: /a, content: early}"))
    assert (disk.root / "a").read_text() == "late"


def test_no_path_leads_out_of_the_machine(disk: Disk) -> None:
    disk.boot(user_data("{path: /../../../evil, content: x}"))
    assert (disk.root / "evil").read_text() == "x"
    assert not (disk.root.parent / "evil").exists()


def test_run_is_memory_and_not_disk(disk: Disk, run_folder: Path) -> None:
    disk.boot(user_data("{path: /run/x/y, content: x}"))
    assert (run_folder / "x/y").read_text() == "x"
    assert not (disk.root / "run").exists()


def test_a_second_boot_writes_nothing_again(disk: Disk) -> None:
    first = disk.boot(user_data("{path: /a, content: one}"))
    first.finish()
    (disk.root / "a").write_text("changed by the machine")
    second = disk.boot(user_data("{path: /a, content: one}"))
    assert not second.first_boot
    assert (disk.root / "a").read_text() == "changed by the machine"


def test_changed_user_data_is_not_applied_to_a_machine_that_exists(disk: Disk) -> None:
    disk.boot(user_data("{path: /a, content: one}")).finish()
    second = disk.boot("#cloud-config\nwrite_files: [{path: /a, content: two}]\nruncmd: [[touch, /x]]\n")
    assert (disk.root / "a").read_text() == "one"
    assert second.run_script() is None


def test_owners_survive_a_reboot(disk: Disk) -> None:
    init = disk.boot(user_data("{path: /a, owner: me}"))
    init.note_owner("/b", "1000:1000")
    assert disk.boot("").owners == {"/a": "me", "/b": "1000:1000"}


def test_cloud_init_keeps_a_copy_that_only_root_reads(disk: Disk) -> None:
    disk.boot(user_data("{path: /a, content: secret}"))
    assert disk.mode("var/lib/cloud/instance/user-data.txt") == 0o600


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ("{content: x}", "has no path"),
        ("{path: relative}", "not an absolute path"),
        ("{path: /a, encoding: b64, content: '*'}", "/a has a content"),
        ("{path: /a, encoding: gz+b64, content: AAAA}", "/a has a content"),
        ("{path: /a, permissions: 'rwx'}", "/a has a content or permissions"),
    ],
)
def test_an_entry_that_cannot_be_written_is_named(entry: str, complaint: str) -> None:
    with pytest.raises(UserDataError, match=complaint):
        files_of(parse(user_data(entry)))


@pytest.mark.parametrize("text", ["echo hi", "#cloud-config\n- a\n", "#cloud-config\na: [\n"])
def test_what_is_no_user_data_is_refused(text: str) -> None:
    with pytest.raises(UserDataError, match=r"ignored"):
        parse(text)


def test_an_error_in_user_data_shows_none_of_it() -> None:
    with pytest.raises(UserDataError) as refused:
        parse("#cloud-config\npassword: hunter2: x\n")
    assert "line 2" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_no_user_data_is_fine() -> None:
    assert parse("") == parse("#cloud-config\n") == {}


def test_a_script_may_be_the_user_data(disk: Disk) -> None:
    script = disk.boot("#!/bin/bash\necho hi\n").run_script()
    assert script
    assert script.read_text() == "#!/bin/bash\necho hi\n"


def test_commands_become_a_script_as_cloud_init_makes_it() -> None:
    assert shell_script([["touch", "a b", "$x"], "echo $HOME | cat"]) == (
        "#!/bin/sh\ntouch 'a b' '$x'\necho $HOME | cat\n"
    )
    with pytest.raises(UserDataError, match="string or a list"):
        shell_script([{"a": 1}])


def test_what_is_not_done_is_said(disk: Disk) -> None:
    init = disk.boot("#cloud-config\nssh_import_id: [x]\ntimezone: UTC\npackages: [socat, [xvfb, 1.2]]\n")
    init.say_what_is_skipped()
    assert "cloud-init: ssh_import_id skipped: the local cloud doesn't have this module" in disk.console
    assert any(line.startswith("cloud-init: timezone skipped") for line in disk.console)
    assert init.packages == {"socat", "xvfb"}
