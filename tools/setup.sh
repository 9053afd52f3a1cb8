#!/bin/sh
# Makes .venv for one of the kinds run, test, mutation. Does nothing when the pins and pyproject.toml are those of the
# last time, so it needs the network once only. Usage: tools/setup.sh run|test|mutation
set -eu
cd "$(dirname "$0")/.."

kind=${1:-run}
lists_of() {
    case $1 in
        run) echo "run build" ;;
        test) echo "run build test" ;;
        mutation) echo "run build test mutation" ;;
        *) echo "setup: unknown kind '$1'; use run, test or mutation" >&2; return 2 ;;
    esac
}
lists=$(lists_of "$kind")

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
has_venv() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

python=
for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
    if new_enough "$candidate"; then python=$candidate; break; fi
done
if [ -z "$python" ]; then
    echo "setup: Gamekeeper needs Python 3.11 or newer, and none was found on PATH." >&2
    echo "hint: install one (on Debian 12 or later: apt-get install python3), or name it: make PYTHON=/path/to/python3" >&2
    exit 1
fi

# The stamp holds what the environment was made from; the folder is part of it because scripts in .venv carry its path.
base=$(pwd; "$python" -c 'import sys; print(sys.version, sys.prefix)')
stamp_of() {
    { echo "$base"; cat pyproject.toml; for list in $(lists_of "$1"); do cat "requirements/$list.txt"; done; } | cksum
}
stamp=.venv/stamp-$kind
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(stamp_of "$kind")" ] && .venv/bin/python -c '' 2>/dev/null; then
    exit 0
fi

if ! has_venv "$python"; then
    package="python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "setup: installing $package, which this machine's Python lacks"
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package"; } >&2
    fi
    if ! has_venv "$python"; then
        echo "setup: $python cannot make virtual environments (its venv or ensurepip part is missing)." >&2
        echo "hint: sudo apt-get install $package" >&2
        exit 1
    fi
fi

if [ ! -f .venv/base ] || [ "$(cat .venv/base)" != "$base" ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    echo "setup: making .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv
    echo "$base" >.venv/base
fi

arguments=
for list in $lists; do arguments="$arguments -r requirements/$list.txt"; done
echo "setup: installing$(printf ' %s.txt' $lists)"
# shellcheck disable=SC2086
if ! .venv/bin/python -m pip install --quiet --disable-pip-version-check $arguments; then
    echo "setup: installing the pinned packages failed (see above)." >&2
    echo "hint: check the network or pip's configuration, then run the same command again; nothing else is needed." >&2
    exit 1
fi
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .

# A larger kind holds the smaller ones.
for smaller in run test mutation; do
    stamp_of "$smaller" >".venv/stamp-$smaller"
    if [ "$smaller" = "$kind" ]; then break; fi
done
