#!/usr/bin/env bash
# The device and its daemon on a real /dev/ublkb, on both kernels (see scripts/vm):
#
#   tests/device_in_vm.sh [PROGRAM]
#
# PROGRAM is the loop device example (default: built here), which is the real daemon over a plain file, with a
# backend that can be told to misbehave. Prints one line a test, and fails if any does. FORERUN_ONLY is a
# pattern of the tests to run, FORERUN_KERNELS are the kernels ("6.12 7.x").
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
kernels=${FORERUN_KERNELS:-6.12 7.x}

if [ "${1:-}" != in-guest ]; then
    program=${1:+$(realpath "$1")}
    if [ -z "$program" ]; then
        (cd "$here" && cargo build --workspace --bins --examples) || exit 1
        program=${CARGO_TARGET_DIR:-$here/target}/debug/examples/loop_device
    fi
    work=$(mktemp -d "${TMPDIR:-/var/tmp}/forerun-device.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    # A copy: what is built meanwhile must not change under what runs.
    cp "$program" "$work/program"
    # One processor each: they run side by side, and what they print comes in order.
    for kernel in $kernels; do
        "$here/scripts/vm" --kernel "$kernel" --time-limit 1200 --allow 'ublk.*(abort|cancel)' -- \
            "$here/tests/device_in_vm.sh" in-guest "$work/program" >"$work/$kernel" 2>&1 &
    done
    wait
    passed=0 failed=0
    for kernel in $kernels; do
        echo "# device tests on Linux $kernel"
        cat "$work/$kernel"
        if read -r p f < <(sed -nE 's/^# ([0-9]+) passed, ([0-9]+) failed$/\1 \2/p' "$work/$kernel"); then
            passed=$((passed + p)) failed=$((failed + f))
        else
            echo "FAILED - the tests on $kernel did not come to their end"
            failed=$((failed + 1))
        fi
    done
    echo "$passed passed, $failed failed"
    [ $failed = 0 ] && [ $passed -gt 0 ] && exit 0
    exit 1
fi

# In the guest: root, with disks /dev/vda ... that may be written.
program=$2
passed=0 failed=0 daemon=
bin=/tmp/bin
mkdir -p $bin && ln -sf "$program" $bin/ublk.forerun
zero_copy=no && [[ $(uname -r) != 6.* ]] && zero_copy=yes

# ok NAME COMMAND...: one test.
ok() {
    local name=$1
    shift
    [[ $name =~ ${FORERUN_ONLY:-.} ]] || return 0
    if "$@" >/tmp/out 2>&1; then
        passed=$((passed + 1)) && echo "ok - $name"
    else
        failed=$((failed + 1)) && echo "FAILED - $name" && sed 's/^/    /' /tmp/out | tail -30
        # Nothing of it may be in the way of the next one.
        kill -9 "$daemon" && wait "$daemon"
        mountpoint -q /mnt && umount -l /mnt
        for device in /sys/class/ublk-char/ublkc*; do
            [ -e "$device" ] && $bin/ublk.forerun del --force -n "${device##*ublkc}"
        done
    fi 2>/dev/null
}

# serve ARG...: a device in the foreground; waits until it is there.
serve() {
    $bin/ublk.forerun add "$@" >/tmp/daemon 2>&1 &
    daemon=$!
    await "grep -q 'data path' /tmp/daemon" && await '[ -b /dev/ublkb0 ]'
}

# await CONDITION [TENTHS]: until it is true.
await() {
    for _ in $(seq "${2:-100}"); do
        eval "$1" && return 0
        sleep 0.1
    done
    echo "not reached: $1"
    cat /tmp/daemon
    return 1
}

# done_with SIGNAL: ends the daemon in good order; nothing of the device is left.
done_with() {
    kill "-$1" "$daemon"
    wait "$daemon"
    local status=$?
    cat /tmp/daemon
    [ $status = 0 ] && [ ! -e /dev/ublkc0 ] && [ ! -e /run/ublksrvd/0.pid ] && [ ! -e /run/ublksrvd/0000.json ]
}

verify() {
    fio --name=v --filename=/dev/ublkb0 --direct=1 --ioengine=io_uring --verify=crc32c --do_verify=1 \
        --iodepth=32 "$@"
}

good_life() {
    serve --volume "$1" "${@:2}" || return
    $bin/ublk.forerun list | grep -q 'state LIVE' || return
    $bin/ublk.forerun list -v | grep -q '"affinity":"0 "' || return
    mkfs.ext4 -qF /dev/ublkb0 && mount /dev/ublkb0 /mnt && cp -r /etc /mnt && umount /mnt || return
    e2fsck -fn /dev/ublkb0 || return
    blkdiscard -o 1M -l 32M /dev/ublkb0 && blkdiscard -z -o 64M -l 16M /dev/ublkb0 || return
    cmp -n 16M -i 64M:0 /dev/ublkb0 /dev/zero || return
    verify --rw=randwrite --bs=4k --size=8m && verify --rw=randwrite --bsrange=4k-512k --size=32m || return
    done_with TERM
}

limits() {
    serve --volume /dev/vda || return
    local queue=/sys/block/ublkb0/queue
    [ "$(cat $queue/logical_block_size $queue/physical_block_size $queue/minimum_io_size $queue/optimal_io_size \
        $queue/discard_granularity $queue/max_hw_sectors_kb $queue/write_cache $queue/fua | xargs)" = \
        "4096 4096 4096 65536 65536 512 write back 1" ] || { cat $queue/fua; return 1; }
    done_with INT
}

said_what() {
    serve --volume /dev/vda "$@" || return
    cat /tmp/daemon
    if [ $zero_copy = yes ] && [ "$*" != --copy ]; then
        grep -q 'data path: zero copy' /tmp/daemon && ! grep -q 'not granted' /tmp/daemon || return
    else
        grep -q 'data path: copy' /tmp/daemon || return
        [ "$*" = --copy ] || grep -q 'not granted by this kernel: AUTO_BUF_REG' /tmp/daemon || return
    fi
    done_with TERM
}

zero_copy_required() {
    if [ $zero_copy = yes ]; then
        serve --volume /dev/vda -z && done_with TERM
    else
        refused 'zero copy was asked for' add --volume /dev/vda -z && [ ! -e /dev/ublkc0 ]
    fi
}

# refused TEXT ARG...: the program fails and says TEXT, in a reasonable time.
refused() {
    timeout 60 $bin/ublk.forerun "${@:2}" >/tmp/refused 2>&1
    local status=$?
    cat /tmp/refused
    [ $status = 1 ] && grep -q "$1" /tmp/refused
}

bad_input() {
    refused 'no device with id 5' list -n 5 && refused 'no device with id 5' del -n 5 &&
        refused "1 to 1024, not 5000" add --volume /dev/vda -d 5000 &&
        refused 'power of two' add --volume /dev/vda --max-io-buf-bytes 100000 &&
        refused 'cannot be opened' add --volume /nowhere &&
        refused 'which volume is device 9' recover -n 9 && [ ! -e /dev/ublkc0 ]
}

no_driver() {
    rmmod ublk_drv && refused 'modprobe ublk_drv' add --volume /dev/vda && refused 'modprobe ublk_drv' list
    local status=$?
    modprobe ublk_drv && await '[ -e /dev/ublk-control ]' && return $status
}

# A queue that waits costs nothing.
idle() {
    serve --volume /dev/vda || return
    sleep 1
    local before after
    before=$(ticks) && sleep 2 && after=$(ticks)
    echo "ticks of 10 ms: $before $after"
    [ $((after - before)) -le 10 ] && done_with TERM
}

ticks() {
    awk '{ print $14 + $15 }' "/proc/$daemon/stat"
}

id_in_use() {
    serve --volume /dev/vda -n 0 || return
    refused 'device id 0 is in use' add --volume /dev/vdb -n 0 || return
    [ -b /dev/ublkb0 ] && dd if=/dev/ublkb0 of=/dev/null bs=1M count=4 && done_with TERM
}

# Linux 6.12 reads the partitions while it starts a device, 7.x afterwards.
stuck_start() {
    local begin=$SECONDS
    if [ $zero_copy = no ]; then
        refused 'did not start within 30 s' add --volume /dev/vda,stuck
    else
        serve --volume /dev/vda,stuck && done_with TERM && grep -q 'requests are not answered' /tmp/daemon
    fi && [ ! -e /dev/ublkc0 ] && [ $((SECONDS - begin)) -lt 60 ]
}

early_stop() {
    $bin/ublk.forerun add --volume /dev/vda,stuck >/tmp/daemon 2>&1 &
    daemon=$!
    await '[ -e /dev/ublkc0 ]' && kill "$daemon" && wait "$daemon"
    local status=$?
    cat /tmp/daemon
    [ $status = 0 ] || grep -q 'asked to stop' /tmp/daemon
    [ $? = 0 ] && [ ! -e /dev/ublkc0 ]
}

del_while_busy() {
    serve --volume /dev/vda || return
    fio --name=l --filename=/dev/ublkb0 --direct=1 --ioengine=io_uring --rw=randrw --bs=4k --iodepth=32 \
        --time_based --runtime=30 >/tmp/fio 2>&1 &
    local load=$!
    sleep 1
    $bin/ublk.forerun del -n 0 --force || return
    wait "$daemon" || return
    wait $load
    [ ! -e /dev/ublkc0 ] && [ ! -e /run/ublksrvd/0.pid ]
}

del_mounted() {
    serve --volume /dev/vda || return
    mkfs.ext4 -qF /dev/ublkb0 && mount /dev/ublkb0 /mnt || return
    refused 'is in use' del -n 0 && umount /mnt && $bin/ublk.forerun del -n 0 && wait "$daemon"
}

# killed ARG...: kill -9 under verified load, twice; the load sees no error.
killed() {
    serve --volume "$1" "${@:2}" || return
    verify --rw=randwrite --bs=4k --size=48m --rate_iops=1500 >/tmp/fio 2>&1 &
    local load=$!
    for _ in 1 2; do
        sleep 1.5
        kill -9 "$daemon"
        wait "$daemon"
        $bin/ublk.forerun recover -n 0 >/tmp/daemon 2>&1 &
        daemon=$!
        await "grep -q 'data path' /tmp/daemon" || return
    done
    wait $load
    local status=$?
    cat /tmp/fio
    [ $status = 0 ] && grep -q 'err= 0' /tmp/fio && done_with TERM
}

recover_others() {
    serve --volume /dev/vda || return
    timeout 90 $bin/ublk.forerun recover -n 0 >/tmp/other 2>&1
    cat /tmp/other
    grep -q 'still lives' /tmp/other && done_with TERM
}

panics() {
    serve --volume /dev/vda,panic || return
    dd if=/dev/zero of=/dev/ublkb0 bs=4k count=1 oflag=direct >/tmp/dd 2>&1 &
    local write=$!
    wait "$daemon"
    [ $? = 134 ] && grep -q 'the test asked for it' /tmp/daemon && $bin/ublk.forerun list | grep -q QUIESCED || return
    # Recovered without the fault, the write is done again.
    sed -i 's/vda,panic/vda/' /run/ublksrvd/0.pid
    $bin/ublk.forerun recover -n 0 >/tmp/daemon 2>&1 &
    daemon=$!
    wait $write && await "grep -q 'data path' /tmp/daemon" && done_with TERM
}

# What `ublk add -t forerun` does, in few words: run the program with a pipe for its answer and closed
# standard files, read 8 bytes, then look into the pid file.
ublk_add() {
    local word
    word=$( { setsid $bin/ublk.forerun "$@" --eventfd 9 9>&1 0<&- 1>&- 2>&- & } | head -c 8 | od -An -tu8 | tr -d ' ')
    echo "$word"
}

by_contract() {
    [ "$(ublk_add add -t forerun --volume /dev/vda)" = 1 ] || return
    local pid
    pid=$(head -c 32 /run/ublksrvd/0.pid | tr -d '\0\n')
    kill -0 "$pid" && [ "$(tail -c 1 /run/ublksrvd/0.pid | od -An -tx1)" = ' 00' ] || return
    tail -c +33 /run/ublksrvd/0.pid | tr -d '\0' | grep -q '"queues":{"0":{"affinity":"0 "' || return
    [ "$(ublk_add add -t forerun --volume /dev/vdb -n 0)" = 18446744073709551614 ] || return
    [ "$(ublk_add add -t forerun --volume /nowhere)" = 18446744073709551614 ] || return
    kill -9 "$pid" && await "! kill -0 $pid" || return
    [ "$(ublk_add recover -n 0)" = 1 ] || return
    dd if=/dev/ublkb0 of=/dev/null bs=1M count=8 || return
    $bin/ublk.forerun del -n 0 && [ ! -e /run/ublksrvd/0.pid ]
}

ok 'what was asked and granted is said' said_what
ok 'copy where it is asked for' said_what --copy
ok 'zero copy required' zero_copy_required
ok 'limits of the block device' limits
ok 'nothing is done when there is nothing to do' idle
ok 'a whole life' good_life /dev/vda
ok 'a whole life by copy' good_life /dev/vda --copy
ok 'a whole life with 512-byte blocks' good_life /dev/vda,512 -q 2 -d 16
ok 'a whole life through put, get, read_fast and write_fast' good_life /dev/vda,bounce
ok 'the same by copy' good_life /dev/vda,bounce --copy
ok 'a whole life with wake-ups from another thread' good_life /dev/vda,foreign
ok 'a whole life with operations begun and forgotten' good_life /dev/vda,drop
ok 'the same by copy' good_life /dev/vda,drop --copy
ok 'bad input is refused' bad_input
ok 'no driver' no_driver
ok 'a device id in use' id_in_use
ok 'a start that gets no answer ends in a message' stuck_start
ok 'a stop during the start' early_stop
ok 'a stop under load' del_while_busy
ok 'a mounted device is not deleted' del_mounted
ok 'kill -9 under load, twice, no error' killed /dev/vda
ok 'the same by copy' killed /dev/vda --copy
ok 'a live device is not taken over' recover_others
ok 'a panic ends the process and leaves a device to recover' panics
ok 'the contract of the stock tool' by_contract
echo "# $passed passed, $failed failed"
[ $failed = 0 ]
