# A guest: one more address on its only interface.
set -eu
ip address add "$1" dev eth0
exec sleep infinity
