#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tries v4l.sh where there is no camera: over the fake kernel camera of tests/capture, preloaded under the real program, with a script in
# a person's place. All goes well once; then nobody pulls the plug or covers the lens and the times are of another clock, and each is
# said. On a machine that does little else: rate and times are judged for real.
#   tests/hw/v4l_try.sh TENDON       built with --features v4l
# Needs a C compiler and python3. Ends with 77 where there is no program or no compiler.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ -n "${1:-}" ] || { echo "skipped: expected a tendon with kernel cameras, found none named: tests/hw/v4l_try.sh TENDON"; exit 77; }
command -v "${CC:-cc}" >/dev/null || { echo "skipped: expected a C compiler, found no ${CC:-cc}"; exit 77; }
real=$(readlink -f "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "FAILED: $1"; cat "$work/said"; exit 1; }
"${CC:-cc}" -std=c11 -O1 -fPIC -shared -o "$work/libfake_v4l.so" tests/capture/fake_v4l.c -ldl -lpthread
# Four pictures each, RGB: a soft scene and the dark, both with a sensor's noise.
mkdir "$work/scene" "$work/dark"
python3 - "$work" <<'END'
import random, sys
from pathlib import Path
work, (width, height), dice = Path(sys.argv[1]), (640, 480), random.Random(1)
# A sum of whole rows as one number: no byte carries into the next.
noise = lambda: dice.randbytes(3 * width).translate(bytes(each & 3 for each in range(256)))
plus = lambda row, grain: (int.from_bytes(row, "big") + int.from_bytes(grain, "big")).to_bytes(3 * width, "big")
rows = [bytes(each for x in range(width) for each in (60 + 120 * x // width, 50 + 140 * y // height, 170 - 90 * x // width)) for y in range(height)]
for at in range(4):
    (work / "scene" / str(at)).write_bytes(b"".join(plus(row, noise()) for row in rows))
    (work / "dark" / str(at)).write_bytes(b"".join(noise() for _ in rows))
END
# What is wrong with each of the eight cameras, which the fake reads while it runs: the numbers of fake_v4l.c.
truncate -s 32 "$work/faults"
cat >"$work/fault" <<END
#!/usr/bin/env bash
printf "\\\\\$(printf %03o "\$1")\\\\000\\\\000\\\\000" | dd of="$work/faults" conv=notrunc status=none
END
cat >"$work/tendon" <<END
#!/usr/bin/env bash
shows=\$(cat "$work/shows")
exec env LD_PRELOAD="$work/libfake_v4l.so" FAKE_V4L_FAULTS="$work/faults" FAKE_V4L_SHOWS="$work/\$shows/0:$work/\$shows/1:$work/\$shows/2:$work/\$shows/3" "$real" "\$@"
END
# A person who does as asked, and one who does not, before a camera with a clock of its own.
cat >"$work/willing" <<END
#!/usr/bin/env bash
echo scene >"$work/shows"
case \$1 in
  replug) (sleep 2; "$work/fault" 1; sleep 1; "$work/fault" 0) >/dev/null 2>&1 & ;;
  cover) echo dark >"$work/shows" ;;
esac
END
cat >"$work/lazy" <<END
#!/usr/bin/env bash
echo scene >"$work/shows"
case \$1 in as-it-is) "$work/fault" 7 ;; *) "$work/fault" 0 ;; esac
END
chmod +x "$work"/{fault,tendon,willing,lazy}
# tries CODE HANDS
tries() {
  local wanted=$1 code=0
  rm -rf "$work/out"
  TENDON=$work/tendon OUT=$work/out TENDON_V4L_SECONDS="5 7 3 3" TENDON_V4L_HANDS=$work/$2 tests/hw/v4l.sh /dev/video40 </dev/null >"$work/said" 2>&1 || code=$?
  [ "$code" = "$wanted" ] || fail "expected to end with $wanted, found $code"
}
said() { grep -q -- "$1" "$work/said" || fail "expected \"$1\""; }
tries 0 willing
for words in "good: as-it-is: .*found start of exposure" "good: as-it-is: expected 30 good pictures a second" "good: as-it-is: .*handed over within two periods" \
  "good: replug: .*found [1-9][0-9]* restarts" "good: replug: expected good pictures again" "good: cover: .*the picture is black" "good: uncover: "; do
  said "$words"
done
cat "$work/said"
tries 1 lazy
said "FAILED: as-it-is: expected capture times that the driver gives, of the monotonic clock, found arrival here"
said "FAILED: replug: expected a camera that was opened again after the plug was pulled, found 0 restarts"
said "FAILED: cover: expected pictures refused as black, or as of one colour, found none refused"
said "good: uncover: expected a good camera at the end"
said "^FAILED: as-it-is replug cover$"
echo "a camera that is replugged and covered, and one that is not: good"
