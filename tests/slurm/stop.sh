#!/usr/bin/env bash
# Stop what start.sh started; remove its configuration, state and logs. Debian's packages stay:
# apt-get purge slurmctld slurmd slurm-client munge
set -euo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
here=$(dirname "$(readlink -f "$0")")
source "$here/daemons.sh"

ours /etc/slurm/slurm.conf || { echo "stop.sh: /etc/slurm/slurm.conf is not start.sh's" >&2; exit 1; }

stop() { # stop PIDFILE NAME
    running "$1" "$2" || return 0
    local pid
    pid=$(cat "$1")
    kill "$pid"
    for _ in {1..100}; do running "$1" "$2" || return 0; sleep 0.1; done
    kill -9 "$pid"
}

# jobs outlive slurmd, so end them first
if running "$DIR/run/slurmctld.pid" slurmctld; then
    timeout 10 scancel --user=root || true
    for _ in {1..40}; do [[ -z $(timeout 10 squeue -h) ]] && break; sleep 0.25; done
fi
stop "$DIR/run/slurmd.pid" slurmd
stop "$DIR/run/slurmctld.pid" slurmctld
if [[ -e $DIR/run/munged.ours ]]; then
    stop /run/munge/munged.pid munged
fi
# while a slurm.conf names a controller that is gone, every snakemake waits for it
rm -f /etc/slurm/slurm.conf /etc/slurm/gres.conf
rm -rf "$DIR"/{run,log,controller,node,dev}
rmdir "$DIR" 2>/dev/null || true
echo "SLURM is stopped"
