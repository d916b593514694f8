#!/usr/bin/env bash
# Checks scripts/vm: fourteen boots, two at a time, in one to two minutes. Prints each check that
# failed and "N passed, N failed"; the exit status is 0 if none failed.
#
# Usage: tests/vm_selftest.sh

set -u
cd "$(dirname "$0")/.." || exit 1
vm=$PWD/scripts/vm
work=$(mktemp -d "${TMPDIR:-/var/tmp}/forerun-vm-selftest.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

check() { # WHAT EXPECTED FOUND
    if [[ $3 == $2 ]]; then # EXPECTED is a pattern
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'FAILED: %s: expected %s, found %s\n' "$1" "$2" "$3"
    fi
}

# Runs scripts/vm in the background; `finish NAME` waits for it and sets status, out, err.
start() { # NAME OPTION...
    local name=$1
    shift
    mkdir "$work/$name"
    { "$vm" "$@" >"$work/$name/out" 2>"$work/$name/err"; echo $? >"$work/$name/status"; } &
    eval "job_$name=$!"
}

finish() { # NAME
    local job=job_$1
    wait "${!job}"
    status=$(<"$work/$1/status") out=$(<"$work/$1/out") err=$(<"$work/$1/err")
}

running() { # is there a QEMU with this word on its command line?
    local file
    for file in /proc/[0-9]*/cmdline; do
        { tr '\0' ' ' <"$file"; } 2>/dev/null | grep -q "^[^ ]*qemu-system.*$1" && { echo yes; return; }
    done
    echo no
}

await() { # FILE: until it has something in it
    local n
    for n in {1..300}; do
        [ -s "$1" ] && return
        sleep 0.1
    done
    echo "waited for $1 in vain"
}

"$vm" --setup || { echo "the set-up failed"; exit 1; }

# ---- Usage: refused before anything is booted.
for arguments in "--kernel 5.10 -- true" "--disk big -- true" "--frob -- true" "--cpus 0 -- true" \
    "--share /nonexistent -- true" "--disk-file /nonexistent -- true" "true" "--"; do
    # shellcheck disable=SC2086 # words
    found=$("$vm" $arguments 2>&1)
    check "'$arguments' is refused" 123 $?
    check "'$arguments' gets a message" 'vm: *--help*' "$found"
done
check "--help" '*Usage: scripts/vm*--time-limit*' "$("$vm" --help)"

# ---- Both kernels at once: the guest as documented.
# shellcheck disable=SC2016 # for the guest
guest='
    uname -r
    ls /dev/ublk-control
    pwd
    nproc
    echo "$DM_DISABLE_UDEV $WORD1 $WORD2"
    lsblk -dno NAME,SIZE | tr -s " \n" " "; echo
    id -u
    stat -fc %T /tmp /run | tr "\n" " "; echo
    modprobe -a brd null_blk dm-thin-pool dm-cache-smq dm-snapshot ext4 xfs && grep -c "^dm_thin_pool" /proc/modules
    mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt && echo x >/mnt/x && umount /mnt && e2fsck -fn /dev/vda >/dev/null 2>&1 && echo mounted
    setpriv --reuid=nobody --regid=nogroup --clear-groups sh -c "touch /tmp/y && id -un"
    touch /etc/forerun-vm-test && echo written
    ls "$SHARE"; date +%s >"$SHARE/date"
    hostname; cat /sys/class/net/lo/operstate
    echo "to stderr" >&2
    sleep 500 &
    exit 7'
for kind in 6.12 7.x; do
    mkdir "$work/share $kind"
    : >"$work/share $kind/it's here"
    [ $kind = 6.12 ] && disks=() cpus=1 || disks=(--disk 64M --disk 32M) cpus=2
    start "k${kind%.*}" --kernel $kind --cpus $cpus ${disks[@]+"${disks[@]}"} --share "$work/share $kind" \
        --env "WORD1=it's" --env WORD2='$a "b"' --env "SHARE=$work/share $kind" -- sh -c "$guest"
done
for kind in 6.12 7.x; do
    finish "k${kind%.*}"
    mapfile -t line <<<"$out"
    [ $kind = 6.12 ] && expected=('6.12.*' 1 'vda 4G vdb 4G vdc 4G ') || expected=('[7-9].*' 2 'vda 64M vdb 32M ')
    check "$kind: exit status ($err)" 7 "$status"
    check "$kind: kernel" "${expected[0]}" "${line[0]-}"
    check "$kind: ublk" /dev/ublk-control "${line[1]-}"
    check "$kind: working folder" "$PWD" "${line[2]-}"
    check "$kind: processors" "${expected[1]}" "${line[3]-}"
    check "$kind: environment" "1 it's \$a \"b\"" "${line[4]-}"
    check "$kind: disks" "${expected[2]}" "${line[5]-}"
    check "$kind: root" 0 "${line[6]-}"
    check "$kind: tmpfs" 'tmpfs tmpfs ' "${line[7]-}"
    check "$kind: modules" 1 "${line[8]-}"
    check "$kind: mkfs, mount, e2fsck" mounted "${line[9]-}"
    check "$kind: another user" nobody "${line[10]-}"
    check "$kind: the root can be written" written "${line[11]-}"
    check "$kind: share, read" "it's here" "${line[12]-}"
    check "$kind: host name" forerun-vm "${line[13]-}"
    check "$kind: loopback" unknown "${line[14]-}"
    check "$kind: stderr apart" 'to stderr' "$err"
    now=$(date +%s) then=$(cat "$work/share $kind/date" 2>/dev/null)
    check "$kind: share written, and the time" 1 $((${then:-0} > now - 60 && ${then:-0} < now + 60))
done
check "the host is untouched" no "$([ -e /etc/forerun-vm-test ] && echo yes || echo no)"

# ---- Bad ends.
mkdir "$work/timed"
start limit --time-limit 20 --share "$work/timed" -- sh -c 'echo before; sleep 100'
start panic --kernel 7.x -- sh -c 'echo c >/proc/sysrq-trigger'
finish limit
check "time limit: status" 124 "$status"
check "time limit: output" before "$out"
check "time limit: message" '*time limit of 20 seconds*' "$err"
check "time limit: QEMU has gone" no "$(running "$work/timed")"
finish panic
check "panic: status" 125 "$status"
check "panic: message" '*Kernel panic*the guest ended*' "$err"

# This one's folder is taken away before it is locked, as another run does that begins at that moment.
mkdir "$work/bin" "$work/tmp"
cat >"$work/bin/flock" <<'SH'
#!/bin/sh
[ -e "$0.done" ] || { rm -rf "$TMPDIR"/forerun-vm.* && touch "$0.done"; }
PATH=${PATH#*:} exec flock "$@"
SH
chmod +x "$work/bin/flock"
PATH=$work/bin:$PATH TMPDIR=$work/tmp start warn --console "$work/console" -- sh -c 'echo "WARNING: a test" >/dev/kmsg'
start allow --kernel 7.x --allow 'WARNING: a test' -- sh -c '
    echo "WARNING: a test" >/dev/kmsg; head -c 20000000 /dev/zero | sha256sum; head -c 3000000 /dev/zero'
finish warn
check "warning: status" 126 "$status"
check "warning: shown" '*WARNING: a test*' "$err"
check "warning: the folder was taken away once" yes "$([ -e "$work/bin/flock.done" ] && echo yes)"
check "warning: in the console log" '*WARNING: a test*' "$(cat "$work/console")"
finish allow 2>/dev/null
check "allowed warning ($err)" 0 "$status"
check "long output is whole" 3000068 "$(stat -c %s "$work/allow/out")"

# ---- However the script ends, QEMU ends too.
for signal in TERM KILL; do
    mkdir "$work/$signal"
    "$vm" --share "$work/$signal" -- sh -c "echo up >'$work/$signal/up'; sleep 100" >"$work/$signal.log" 2>&1 &
    eval "pid_$signal=$!"
done
for signal in TERM KILL; do
    pid=pid_$signal
    await "$work/$signal/up"
    check "SIG$signal: QEMU runs" yes "$(running "$work/$signal")"
    kill -$signal "${!pid}"
    wait "${!pid}" 2>/dev/null
    status=$?
    [ $signal = TERM ] && check "SIGTERM: status" 143 $status
    sleep 0.3
    check "SIG$signal: QEMU has gone" no "$(running "$work/$signal")"
done

# ---- Power cuts: what is lost with a volatile cache, and what is not.
# shellcheck disable=SC2016 # for the guest
cut='
    put() { printf "%s" "$1" | dd of=/dev/vda bs=4096 conv=sync$3 seek=$2 oflag=direct 2>/dev/null; }
    get() { dd if=/dev/vda bs=4096 count=1 skip=$1 iflag=direct 2>/dev/null | tr -d "\0" | head -c 8; echo; }
    case $FORERUN_VM_BOOT in
        0) put flushed 0 ,fsync; put loose 1; echo "boot 0: $(get 0) $(get 1)"; sleep 60 ;;
        1) echo "boot 1: $(get 0) $(get 1)"; sleep 0.5; echo b >/proc/sysrq-trigger; sleep 60 ;;
        2) echo "boot 2: $(get 0) $(get 1)" ;;
    esac'
truncate -s 64M "$work/image"
start volatile --kernel 7.x --volatile --disk 64M --resets 2 --reset-after 12-12.5 -- sh -c "$cut"
# The other one is reset from outside, through the monitor.
start kept --disk-file "$work/image" --resets 2 --monitor "$work/monitor" -- sh -c "$cut"
await "$work/kept/out"
python3 - "$work/monitor" <<'PYTHON'
import socket, sys, time
monitor = socket.socket(socket.AF_UNIX)
monitor.connect(sys.argv[1])
monitor.sendall(b"system_reset\n")
time.sleep(1)
PYTHON
finish volatile
check "power cut, volatile ($err)" 0 "$status"
check "power cut, volatile: what was read" $'boot 0: flushed loose\nboot 1: flushed \nboot 2: flushed ' "$out"
check "power cut, volatile: said so" '*power cut: vda lost 8 of 8*' "$err"
finish kept
check "reset ($err)" 0 "$status"
check "reset: what was read" $'boot 0: flushed loose\nboot 1: flushed loose\nboot 2: flushed loose' "$out"

# ---- Measurement mode: the same twice. And a kept image in the next boot.
measured='grep -wo NO_WAKEUP_PREEMPTION /sys/kernel/debug/sched/features; grep -o erms /proc/cpuinfo; date +%F; dd if=/dev/vda bs=7 count=1 2>/dev/null'
start icount --kernel 7.x --icount --disk-file "$work/image" -- sh -c "$measured"
start reset_once -- sh -c 'echo b >/proc/sysrq-trigger; sleep 60'
finish icount
check "icount ($err)" 0 "$status"
check "icount: the guest" $'NO_WAKEUP_PREEMPTION\n2026-01-01\nflushed' "$out"
finish reset_once
check "a reset without --resets: status" 125 "$status"

left=$(find "${TMPDIR:-/var/tmp}" -maxdepth 1 -name 'forerun-vm.*' -newer "$work/limit/status" -user "$(id -u)" |
    while read -r folder; do flock -n "$folder/lock" echo "$folder"; done | wc -l)
# The one of the run that was killed with -9 goes with the next run: by now it has.
check "temporary folders left behind" 0 "$left"

echo "$passed passed, $failed failed"
[ $failed = 0 ]
