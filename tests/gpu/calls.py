# SPDX-License-Identifier: Apache-2.0
"""What a GPU machine is sent in which call, where a call takes at most so many MiB, the working tree among them: all that git does not
ignore goes along each time, and what git ignores stays there between two calls.

    calls.py MIB PROGRAMS LEAN...      the folders that run.sh packs; ends with 1 if one of them does not fit
"""

import os
import subprocess
import sys
from pathlib import Path

MIB = 1 << 20


def mib(size):
    return f"{size / MIB:.1f} MiB"


def of_folder(folder):
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()) if folder.is_dir() else 0


def working_tree():
    try:
        listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], check=True, stdout=subprocess.PIPE)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"calls.py: expected a checkout of git, which knows what goes along, found {error}")
    names = [os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
    # A file that was removed is listed until that is committed.
    return sum(os.lstat(name).st_size for name in names if os.path.lexists(name))


def shown(folder):
    return str(folder.relative_to(Path.cwd())) if folder.is_relative_to(Path.cwd()) else str(folder)


def main():
    if not sys.argv[1].isdecimal():
        sys.exit(f"calls.py: expected whole MiB a call, found {sys.argv[1]!r}")
    most, programs, leans = int(sys.argv[1]) * MIB, Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]]
    tree, sizes = working_tree(), {folder: of_folder(folder) for folder in (programs, *leans)}
    print(f"at most {mib(most)} a call, of them the working tree {mib(tree)}")

    def whole(folders):
        return tree + sum(sizes[folder] for folder in folders)

    # Once there, a library stays: a later call does not take it along again. Each goes with the first call that has room for it.
    calls = [[programs]]
    for lean in (lean for lean in leans if sizes[lean]):
        room = next((call for call in calls if whole(call) + sizes[lean] <= most), None)
        if room:
            room.append(lean)
        else:
            calls.append([lean])
    # The programs last, which run on what is there then.
    calls = calls[1:] + calls[:1]
    fits = True
    for at, folders in enumerate(calls, 1):
        size, command = whole(folders), "tests/gpu/run.sh" if programs in folders else "true"
        fits &= size <= most
        print(f"call {at}: take along {' '.join(map(shown, folders))}; run: {command} ({mib(size)}{'' if size <= most else ': TOO MUCH'})")
    if len(calls) > 1:
        print("one right after the other, on the same machine: the last finds there what those before it brought")
    sys.exit(not fits)


main()
