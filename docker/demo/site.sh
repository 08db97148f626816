# A host: $1 its name, $2 its router, $3 how its address on the guests' LAN begins. It joins with
# its invite and bridges that LAN.
set -eu
name=$1 router=$2 guests=$3
ip route replace default via "$router"
state=/var/lib/farlan
lan=$(ip -o -4 address | awk -v ip="$guests" 'index($4, ip) == 1 { print $2 }')
if [ -n "$lan" ]; then
    ip link add br-guests type bridge
    ip address flush dev "$lan"
    ip link set "$lan" master br-guests
    ip link set br-guests up
fi
if [ ! -e $state/membership ]; then
    until [ -e "/shared/$name.invite" ]; do sleep 0.1; done
    farlan join - <"/shared/$name.invite"
    farlan attach lab --bridge br-guests
fi
exec farlan up
