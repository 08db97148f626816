# The bootstrap, and the authority that invites both sites. The first start makes the overlay.
set -eu
export FARLAN_STATE=/shared/authority
if [ ! -e /shared/overlay-id ]; then
    farlan init | tail -1 >/shared/overlay-id.new
    farlan network add lab
    mv /shared/overlay-id.new /shared/overlay-id
fi
FARLAN_STATE=/shared/bootstrap farlan-bootstrap --overlay "$(cat /shared/overlay-id)" \
    --listen 198.51.100.10:22611 >/tmp/addresses &
serving=$!
trap 'kill $serving' INT TERM
until grep -q /p2p/ /tmp/addresses; do kill -0 $serving; sleep 0.1; done
sleep 0.3
for site in site-a site-b; do
    [ ! -e /shared/$site.invite ] || continue
    set --
    for address in $(grep /p2p/ /tmp/addresses); do set -- "$@" --bootstrap "$address"; done
    farlan invite --network lab --name $site --again "$@" >/shared/$site.new
    mv /shared/$site.new /shared/$site.invite
done
cat /tmp/addresses
wait $serving
