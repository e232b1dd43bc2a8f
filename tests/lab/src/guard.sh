# Cleans up after a lab: $1 is its scratch directory. Waits until standard input ends, which the kernel
# sees to however the lab's process dies; the line "detach" means that the lab is to live on without us.
scratch=$1
trap '' INT TERM HUP QUIT
while read -r word; do
    [ "$word" = detach ] && exit 0
done

# Processes of this lab: marked in their environment, or (postgres, sshd and a shared ssh overwrite theirs) a
# postgres working in the scratch directory or an sshd or ssh with a file of it; and their descendants.
members() {
    {
        grep -lzxF -- "REPMGR_LAB_SCRATCH=$scratch" /proc/[0-9]*/environ
        for file in $(find /proc/[0-9]*/cwd -maxdepth 0 -lname "$scratch/*"); do
            grep -qx 'postgres' "${file%/*}/comm" && echo "$file"
        done
        for file in $(grep -lzF -- "$scratch/" /proc/[0-9]*/cmdline); do
            grep -qxE 'sshd?' "${file%/*}/comm" && echo "$file"
        done
        grep -H '^PPid:' /proc/[0-9]*/status
    } 2>/dev/null | awk -F '[/:\t]+' '
        $4 != "status" { member[$3] }
        $4 == "status" { parent[$3] = $NF }
        END {
            do {
                more = 0
                for (pid in parent) if (!(pid in member) && parent[pid] in member) { member[pid]; more = 1 }
            } while (more)
            for (pid in member) if (pid in parent) print pid
        }'
}

round=0
while pids=$(members) && [ -n "$pids" ] && [ "$round" -lt 150 ]; do
    for pid in $pids; do
        if [ "$round" -ge 80 ]; then signal=KILL
        elif [ "$round" -gt 0 ]; then continue
        elif grep -qx postgres "/proc/$pid/comm" 2>/dev/null; then signal=QUIT
        else signal=TERM
        fi
        kill -s "$signal" "$pid" 2>/dev/null
    done
    round=$((round + 1))
    sleep 0.1
done
[ -z "$pids" ] || echo "lab: could not stop processes" $pids >&2

if [ -e "$scratch/keep" ]; then
    echo "lab: servers stopped, files kept in $scratch" >&2
else
    cd / && rm -rf -- "$scratch"
fi
[ -z "$pids" ]
