# What start.sh and stop.sh share.
DIR=${RDMDC_SLURM_DIR:-/tmp/rdmdc-slurm}
MARK='# written by tests/slurm/start.sh of rdmdc'

ours() { # ours FILE: it is not there, or start.sh wrote it
    [[ ! -e $1 ]] || grep -qxF "$MARK" "$1"
}

running() { # running PIDFILE NAME: that daemon runs and is no zombie
    local pid
    pid=$(cat "$1" 2>/dev/null) || return 1
    [[ -n $pid && $(cat "/proc/$pid/comm" 2>/dev/null) == "$2" ]] || return 1
    ! grep -q '^State:.Z' "/proc/$pid/status"
}
