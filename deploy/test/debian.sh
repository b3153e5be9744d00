#!/bin/sh
# Makes a clean Debian 12, boots it in a virtual machine and runs a script there; prints what the script prints and ends
# as it ends. Emulation is enough: a boot takes ten seconds.
#
#   [PACKAGES=a,b] deploy/test/debian.sh SCRIPT FILE...     FILEs and the Debian packages PACKAGES are there, too
#
# Needs root, mmdebstrap, e2fsprogs, qemu-system-x86 and a Debian mirror.
set -eu
script=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mmdebstrap --quiet --variant=minbase \
    --include=linux-image-cloud-amd64,systemd-sysv,dbus,udev,kmod,iproute2,procps,curl,jq,prometheus,prometheus-alertmanager${PACKAGES:+,$PACKAGES} \
    bookworm "$work/root"
cp "$@" "$work/root/root/"
# Alertmanager does not start on a host without an address.
printf '[Match]\nType=ether\n[Network]\nDHCP=ipv4\n' > "$work/root/etc/systemd/network/dhcp.network"
systemctl --quiet --root "$work/root" enable systemd-networkd systemd-networkd-wait-online
cat > "$work/root/etc/systemd/system/test.service" <<UNIT
[Unit]
Wants=network-online.target
After=multi-user.target network-online.target
[Service]
Type=oneshot
WorkingDirectory=/root
Environment=HOME=/root
ExecStart=/bin/sh -c 'sh $(basename "$script"); echo "status \$?"'
ExecStopPost=/bin/systemctl poweroff
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS1
[Install]
WantedBy=multi-user.target
UNIT
mkdir -p "$work/root/etc/systemd/system/multi-user.target.wants"
ln -s ../test.service "$work/root/etc/systemd/system/multi-user.target.wants/"
truncate -s 3G "$work/disk"
mke2fs -q -t ext4 -d "$work/root" "$work/disk"

timeout "${TIMEOUT:-1800}" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 2048 -M q35 \
    -nodefaults -display none -no-reboot -nic user,model=virtio-net-pci \
    -kernel "$work"/root/boot/vmlinuz-* -initrd "$work"/root/boot/initrd.img-* \
    -append 'root=/dev/vda rw console=ttyS0 panic=-1' \
    -drive "file=$work/disk,if=virtio,format=raw" \
    -serial "file:$work/console" -serial "file:$work/output"
sed 's/\r$//; s/.*\r//; /^status [0-9]*$/d' "$work/output"
grep -q '^status 0' "$work/output" || { tail -n 40 "$work/console" >&2; exit 1; }
