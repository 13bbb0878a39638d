#!/usr/bin/env bash
# Start a real single-node SLURM on the loopback interface with two fake GPUs, for the tests beside
# this file: Debian or Ubuntu, root, without systemd. Never on a cluster. Running it again is safe.
#   RDMDC_SLURM_DIR   state, logs, process ids; default /tmp/rdmdc-slurm
# Exit code 77: SLURM cannot be had here; the last line says why.
set -euo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
here=$(dirname "$(readlink -f "$0")")
source "$here/daemons.sh"
CPUS=4       # more than there may be: its jobs are small, and half their time they wait
MEMORY=16000 # MB that the node advertises; nothing enforces it

cannot() { echo "no SLURM here: $*" >&2; exit 77; }
fail() { echo "start.sh: $*" >&2; exit 1; }

[[ $(id -u) == 0 ]] || cannot "its daemons need root"
[[ -z ${SLURM_CONF:-} ]] || cannot "SLURM_CONF names $SLURM_CONF, perhaps a real cluster's"
for configuration in /etc/slurm /etc/slurm-llnl; do
    ours "$configuration/slurm.conf" ||
        cannot "$configuration/slurm.conf is not this script's: perhaps a real cluster's"
done
[[ -e /etc/slurm/slurm.conf ]] || ! timeout 10 sinfo -h >/dev/null 2>&1 ||
    cannot "a cluster answers sinfo"

# --- packages ------------------------------------------------------------------------------------
missing=()
for command in slurmctld:slurmctld slurmd:slurmd sbatch:slurm-client munged:munge; do
    command -v "${command%:*}" >/dev/null || missing+=("${command#*:}")
done
mkdir -p "$DIR"/{run,log,controller,node,dev}
if ((${#missing[@]})); then
    command -v apt-get >/dev/null || cannot "no apt-get to install ${missing[*]} with"
    # the packages must not start services of their own
    policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
    fi
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } \
        >"$DIR/log/apt.log" 2>&1 ||
        cannot "apt-get could not install ${missing[*]}: $(grep '^E:' "$DIR/log/apt.log" | head -1)"
fi

# --- munge, which signs the daemons' messages ----------------------------------------------------
signs() { munge -n 2>/dev/null | unmunge >/dev/null 2>&1; }
if [[ ! -s /etc/munge/munge.key ]]; then
    install -d -o munge -g munge -m 700 /etc/munge
    (umask 077 && head -c 128 /dev/urandom >/etc/munge/munge.key)
    chown munge:munge /etc/munge/munge.key
fi
if ! signs; then
    install -d -o munge -g munge -m 755 /run/munge
    rm -f /run/munge/munge.socket.2*
    runuser -u munge -- munged
    touch "$DIR/run/munged.ours"
    for _ in {1..50}; do signs && break; sleep 0.1; done
    signs || fail "munged does not answer"
fi

# --- configuration -------------------------------------------------------------------------------
node=$(hostname -s)
for gpu in 0 1; do # clones of /dev/null stand for the devices
    [[ -e $DIR/dev/gpu$gpu ]] || mknod "$DIR/dev/gpu$gpu" c 1 3 2>/dev/null || touch "$DIR/dev/gpu$gpu"
done
mkdir -p /etc/slurm # nowhere else: the steps inside a job do not see SLURM_CONF
cat >/etc/slurm/gres.conf <<END
$MARK
AutoDetect=off
NodeName=$node Name=gpu File=$DIR/dev/gpu[0-1]
END
cat >/etc/slurm/slurm.conf <<END
$MARK
ClusterName=loopback
SlurmctldHost=$node(127.0.0.1)
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$DIR/controller
SlurmdSpoolDir=$DIR/node
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmdPidFile=$DIR/run/slurmd.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=100000,bf_interval=2
SlurmdParameters=config_overrides
# squeue must remember a finished job until Snakemake has asked three times
MinJobAge=3600
KillWait=2
ReturnToService=2
GresTypes=gpu
NodeName=$node NodeAddr=127.0.0.1 CPUs=$CPUS RealMemory=$MEMORY Gres=gpu:2 State=UNKNOWN
PartitionName=all Nodes=$node Default=YES MaxTime=1-0 State=UP
END

# --- daemons -------------------------------------------------------------------------------------
for daemon in slurmctld slurmd; do
    running "$DIR/run/$daemon.pid" $daemon ||
        $daemon || fail "$daemon did not start; see $DIR/log/$daemon.log"
done
for _ in {1..60}; do
    state=$(sinfo -h -N -n "$node" -o %T 2>/dev/null | head -1 || true)
    [[ $state =~ ^(idle|mixed|allocated)$ ]] && break
    # a node that an earlier start left down
    [[ $state =~ ^(down|drain) ]] && scontrol update NodeName="$node" State=RESUME 2>/dev/null || true
    sleep 0.5
done
[[ $state =~ ^(idle|mixed|allocated)$ ]] || fail "the node is ${state:-unknown}; see $DIR/log"
echo "SLURM $(sinfo -V | cut -d' ' -f2) is up: $CPUS CPUs, $MEMORY MB, 2 fake GPUs"
