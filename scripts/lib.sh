# Sourced by the commands in this folder: finds or makes the virtual environment they run in.
# Sets `root` (the clone) and, after ensure_environment, `python` (the environment's interpreter).
# shellcheck shell=bash

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv
stamp=$venv/.made-from

die() {
    printf '%s\n' "${0##*/}: $*" >&2
    exit 2
}

# Print the first Python that is new enough; PYTHON=... chooses one.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    die "no Python 3.11 or later is on PATH. Install one (Debian: apt install python3 python3-venv) or set PYTHON=/path/to/python3."
}

# What the environment depends on: where the clone lies (an environment cannot be moved) and its pyproject.toml.
wanted_stamp() {
    printf '%s\n' "$root"
    sha256sum <"$root/pyproject.toml"
}

make_environment() {
    local base log
    [[ ! -L $venv ]] || # venv --clear follows the link, pip would install this clone into the environment of another
        die "$venv is a symbolic link: an environment belongs to one clone. Remedy: rm $venv, and start this command again"
    if [[ ! -x $venv/bin/python || (-e $stamp && $(head -n 1 "$stamp") != "$root") ]]; then
        base=$(find_python) || exit 2
        "$base" -c 'import ensurepip, venv' 2>/dev/null ||
            die "$base cannot make virtual environments. Remedy on Debian and Ubuntu: apt install python3-venv"
        "$base" -m venv --clear "$venv" || die "could not make $venv"
    fi
    echo "setting up $venv (once; again when pyproject.toml changes)" >&2
    log=$(mktemp)
    # compat: the clone is found by a path; by default it is an import hook, which costs each start of a daemon 20 ms.
    if ! (cd "$root" && "$venv/bin/python" -m pip install --disable-pip-version-check --quiet \
        --config-settings editable_mode=compat -e '.[dev]') >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        die "pip could not install the project (see above). It needs the package index; where a package has to be compiled," \
            "also: apt install gcc python3-dev libcurl4-openssl-dev libssl-dev"
    fi
    rm -f "$log"
    wanted_stamp >"$stamp"
}

# Make .venv when it is missing or older than pyproject.toml. Two commands at once: one makes it, the other waits.
ensure_environment() {
    python=$venv/bin/python
    [[ -x $python && -e $stamp && $(<"$stamp") == "$(wanted_stamp)" ]] && return
    (
        if command -v flock >/dev/null; then
            flock 9
        fi
        [[ -x $python && -e $stamp && $(<"$stamp") == "$(wanted_stamp)" ]] || make_environment
    ) 9<"$root" || exit 2
}

# Become `python -m scripts.NAME ARGUMENTS`, wherever the caller stands.
run_module() {
    PYTHONPATH=$root exec "$python" -P -m "scripts.$1" "${@:2}"
}
