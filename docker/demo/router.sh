# A NAT router: what leaves by the interface whose address begins with $1 gets that address, and
# nothing comes in that was not asked for.
set -eu
wan=$(ip -o -4 address | awk -v ip="$1" 'index($4, ip) == 1 { print $2 }')
nft -f - <<RULES
table ip farlan_demo {
    chain out { type nat hook postrouting priority srcnat; oifname "$wan" masquerade; }
    chain through {
        type filter hook forward priority filter; policy accept;
        iifname "$wan" ct state established,related accept
        iifname "$wan" drop
    }
    chain into {
        type filter hook input priority filter; policy accept;
        iifname "$wan" ct state established,related accept
        iifname "$wan" drop
    }
}
RULES
exec sleep infinity
