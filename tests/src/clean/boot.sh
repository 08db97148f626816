# Becomes the systemd of a clean host. Started as root in new mount, PID, UTS, IPC and cgroup namespaces.
#
#   boot.sh ROOT DIR NAME    ROOT: a Debian root, which stays as it is; DIR: a directory of the host's own;
#                            NAME: what it is called. DIR/pid: PID 1 as the outside sees it.
#
# What is not the host's own is closed to it, as in systemd-nspawn: the kernel's settings but those of its
# network, the clock, modules, and the cgroups of the outside.
set -eu
root=$1 dir=$2 name=$3
read -r pid _ </proc/self/stat   # /proc is still that of the outside
mount --make-rprivate /
mkdir "$dir/own"
mount -t tmpfs tmpfs "$dir/own"
mkdir "$dir/own/upper" "$dir/own/work" "$dir/own/root"
mount -t overlay -o "lowerdir=$root,upperdir=$dir/own/upper,workdir=$dir/own/work" overlay "$dir/own/root"
cd "$dir/own/root"
mount -t proc proc proc
mount --bind proc/sys/net proc/sys/net
mount --rbind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
for device in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
    IFS=: read -r file major minor <<<"$device"
    mknod -m 666 "dev/$file" c "$major" "$minor"
done
[ ! -e proc/sysrq-trigger ] || mount --bind dev/null proc/sysrq-trigger
mkdir dev/net dev/pts dev/shm
mknod -m 666 dev/net/tun c 10 200
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for n in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${n%:*}" "dev/${n#*:}"; done
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
hostname "$name"
echo "$name" >etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$name" >etc/hosts
: >etc/resolv.conf
tr -d - </proc/sys/kernel/random/uuid >etc/machine-id
echo "$pid" >"$dir/pid"
mkdir outside
pivot_root . outside
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin /bin/sh -c '
    umount -l /outside && rmdir /outside
    exec setpriv --bounding-set=-sys_time,-sys_boot,-sys_module,-sys_rawio /lib/systemd/systemd \
        --log-target=console --show-status=0'
