# Brings a checkout from nothing to a virtual environment in which the server runs; a second time it takes no time.
# Sourced by serve.sh and test.sh, which call `bootstrap requirements.txt` and then use $venv_python.
#
# In: $root (the checkout), PYTHON (optional: the interpreter to use). Nothing is written outside $root/.venv, except system
# packages that are missing. They are installed with apt-get, and never leave a service running.

venv="$root/.venv"
venv_python="$venv/bin/python"

fail() {
    echo "error: $*" >&2
    exit 1
}

note() {
    echo "[setup] $*"
}

# --- Python --------------------------------------------------------------------------------------------------------

is_supported() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1
}

# Prints an interpreter of a supported version: that of the virtual environment if there is one, so that it is kept.
find_python() {
    local candidate
    if [[ -n "${PYTHON:-}" ]]; then
        is_supported "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.10, 3.11 or 3.12."
        echo "$PYTHON"
        return
    fi
    if venv_is_whole; then
        echo "$venv_python"
        return
    fi
    for candidate in python3 python3.12 python3.11 python3.10 /usr/bin/python3; do
        if is_supported "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "No Python 3.10, 3.11 or 3.12 found: install one (Debian, Ubuntu: apt-get install python3) or name it with PYTHON=."
}

# --- System packages -----------------------------------------------------------------------------------------------

# Prints the Debian packages that are missing, one per line.
missing_packages() {
    local python="$1" tag
    tag=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    "$python" -c 'import ensurepip, venv' 2>/dev/null || echo "python$tag-venv"
    launcher_finds "$python" triton.libpython || echo "libpython$tag"
    launcher_finds "$python" gateway.find_nginx || printf '%s\n' nginx libnginx-mod-http-js
}

# Whether a look-up of the launcher succeeds: what is needed is written down there, once.
launcher_finds() {
    local module="${2%.*}" name="${2#*.}"
    PYTHONPATH="$root" "$1" -c "from launcher.$module import $name; $name()" >/dev/null 2>&1
}

install_packages() {
    local as_root=()
    local command="apt-get install -y --no-install-recommends $*"
    command -v apt-get >/dev/null || fail "Missing: $* (names of Debian packages); install them and start again."
    if [[ $EUID -ne 0 ]]; then
        command -v sudo >/dev/null || fail "Missing system packages; run as root: $command"
        as_root=(sudo)
        [[ -t 0 ]] || as_root+=(-n)
    fi
    note "installing system packages: $*"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive bash -c "$install_script" install "$@" >&2 ||
        fail "Could not install system packages; run as root: $command"
}

# Runs as root. A package's service must neither start now (policy-rc.d, Debian's switch for that; ours is removed however
# this ends) nor with the next boot: the nginx of this server is a child of the launcher, and port 80 is not ours to take.
install_script='
set -e
had_nginx=$(command -v nginx || true)
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap "rm -f $policy" EXIT
    trap "exit 130" INT TERM HUP
    printf "#!/bin/sh\nexit 101\n" > "$policy"
    chmod 755 "$policy"
fi
apt-get update -qq
apt-get install -y -qq --no-install-recommends "$@"
if [ -z "$had_nginx" ] && command -v nginx >/dev/null && command -v systemctl >/dev/null; then
    systemctl disable nginx.service >/dev/null 2>&1 || true
fi
'

# What tests of the page look for; without it they are skipped. Not every distribution has it as a package: Ubuntu's
# chromium is a snap. Any other Chromium or Chrome on the PATH will do (tests/browser.py).
bootstrap_browser() {
    (cd "$root" && "$venv_python" -c "from tests.browser import find_browser; find_browser()") 2>/dev/null && return
    (install_packages chromium-headless-shell) || note "no browser: the tests of the page are going to be skipped"
}

# --- Virtual environment -------------------------------------------------------------------------------------------

# What was installed, as one word: the requirements themselves and the Python they were installed for.
fingerprint() {
    { cat "$root"/requirements.txt "$root/$1"; "$2" -V; } | sha256sum | cut -d' ' -f1
}

# An environment whose making was interrupted has a Python, but no pip and no mark.
venv_is_whole() {
    is_supported "$venv_python" || return 1
    [[ -e "$venv/whole" ]] || { "$venv_python" -m pip --version >/dev/null 2>&1 && touch "$venv/whole"; }
}

# Whether the virtual environment was made from this interpreter.
made_from() {
    local identity='import sys; print(sys.version_info[:3], sys.base_prefix)'
    [[ "$("$1" -c "$identity")" == "$("$venv_python" -c "$identity" 2>/dev/null)" ]]
}

make_venv() {
    note "creating $venv"
    "$1" -m venv --clear "$venv" >&2 || fail "Could not create $venv; remove it and start again."
    touch "$venv/whole"
}

# The stamp is written last, so an interrupted installation is done again.
install_requirements() {
    local requirements="$1" stamp="$venv/installed-$1"
    local wanted
    wanted=$(fingerprint "$requirements" "$venv_python")
    [[ "$(cat "$stamp" 2>/dev/null)" == "$wanted" ]] && return
    rm -f "$stamp"
    note "installing $requirements (about a minute the first time)"
    "$venv_python" -m pip install --quiet --disable-pip-version-check -r "$root/$requirements" >&2 ||
        fail "Could not install $requirements; see pip's message above."
    echo "$wanted" >"$stamp"
}

bootstrap() {
    local requirements="$1" python packages
    python=$(find_python)
    mapfile -t packages < <(missing_packages "$python")
    if [[ ${#packages[@]} -gt 0 ]]; then
        install_packages "${packages[@]}"
        mapfile -t packages < <(missing_packages "$python")
        [[ ${#packages[@]} -eq 0 ]] || fail "Still missing after installing system packages: ${packages[*]}."
    fi
    if ! venv_is_whole || ! made_from "$python"; then
        make_venv "$python"
    fi
    install_requirements "$requirements"
}
