#!/bin/sh
# Builds a signed package repository in /srv/apt that stands for Docker's own: the distribution's packages under Docker's package names.
set -eu
export DEBIAN_FRONTEND=noninteractive GNUPGHOME=/srv/gnupg
suite=$1
apt-get -q update
apt-get -q -y --no-install-recommends install dpkg-dev gpg gpg-agent

pool=/srv/apt/linux/debian/pool
mkdir -p "$pool" /srv/work && cd /srv/work
if [ "$suite" = bookworm ]; then
    # Debian 12 has its engine and client in one package and no Compose v2: that one is Debian 13's.
    apt-get -q download docker.io containerd runc
    mirror=$(grep -rhoE 'https?://[^ ]*/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d | head -n 1)
    echo "deb $mirror trixie main" > /etc/apt/sources.list.d/next.list
    apt-get -q update
    apt-get -q download docker-compose
    rm /etc/apt/sources.list.d/next.list
    engine=5:20.10.24-1 containerd=1.6.20-1 client=
else
    apt-get -q download docker.io docker-cli containerd runc docker-compose
    engine=5:26.1.5-1 containerd=1.7.27-1 client=docker-cli
fi

# repack <new name> <version> <depends> <conflicts> <package>...: the files of the packages, with their maintainer scripts, as one package.
repack() {
    name=$1 version=$2 depends=$3 conflicts=$4
    shift 4
    rm -rf tree && mkdir -p tree/DEBIAN
    for package in "$@"; do
        dpkg-deb -x "$(ls "${package}"_*.deb)" tree
        dpkg-deb -e "$(ls "${package}"_*.deb)" control
        for script in preinst postinst prerm postrm conffiles; do
            [ ! -f "control/$script" ] || cp "control/$script" tree/DEBIAN/
        done
        needed=$(dpkg-deb -f "$(ls "${package}"_*.deb)" Depends)
        # Of its own dependencies stay those that are none of the repackaged ones.
        depends="$depends, $(echo "$needed" | tr ',' '\n' | grep -vE '^ *(docker|containerd|runc)' | paste -sd,)"
        rm -rf control
    done
    {
        echo "Package: $name"
        echo "Version: $version"
        echo "Architecture: $(dpkg --print-architecture)"
        echo "Maintainer: Test Repository <root@example.org>"
        echo "Depends: $(echo "$depends" | sed -E 's/^[ ,]+//; s/[ ,]+$//; s/,[ ,]+/, /g')"
        [ -z "$conflicts" ] || { echo "Conflicts: $conflicts"; echo "Replaces: $conflicts"; }
        echo "Description: $name for tests, repackaged from the distribution"
    } | grep -v '^Depends: $' > tree/DEBIAN/control
    dpkg-deb --root-owner-group -Zgzip -z1 -b tree "$pool/${name}_all.deb"
    rm -rf tree
}

repack containerd.io "$containerd" "" "containerd, runc" containerd runc
# shellcheck disable=SC2086  # no package where the client is part of the engine's
repack docker-ce-cli "$engine" "" "docker-cli" $client
repack docker-ce "$engine" "containerd.io, docker-ce-cli" "docker.io" docker.io
repack docker-compose-plugin 2.26.1-1 "docker-ce-cli" "docker-compose" docker-compose

mkdir -p -m 700 "$GNUPGHOME"
gpg --batch --quiet --passphrase '' --quick-gen-key 'Test Repository <root@example.org>' ed25519 sign never
gpg --batch --armor --export > /srv/apt/linux/debian/gpg

cd /srv/apt/linux/debian
packages=dists/$suite/stable/binary-$(dpkg --print-architecture)
mkdir -p "$packages"
dpkg-scanpackages --multiversion pool > "$packages/Packages"
gzip -1 -k "$packages/Packages"
cd "dists/$suite"
{
    echo "Origin: Docker"
    echo "Suite: $suite"
    echo "Codename: $suite"
    echo "Components: stable"
    echo "Architectures: $(dpkg --print-architecture)"
    echo "Date: $(date -Ru)"
    echo "SHA256:"
    find stable -type f | sort | while read -r file; do
        echo " $(sha256sum "$file" | cut -d' ' -f1) $(stat -c %s "$file") $file"
    done
} > Release
gpg --batch --quiet --clearsign -o InRelease Release
apt-get -q -y purge --auto-remove dpkg-dev gpg gpg-agent
rm -rf /srv/work /var/lib/apt/lists/*
