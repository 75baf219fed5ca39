#!/bin/sh
# two_machines.sh BUILD - a run on two machines that share a workspace over NFS, each a real Linux in qemu: 1 has the disk,
# exports it and runs Redis, the coordinator, embed and train; 2 mounts it with default options and runs every service. The
# run is made once undisturbed, where each machine sees at once what the other wrote, and once with faults: machine 2, with
# a wrong clock, is frozen until the coordinator drops it, then loses power, and then machine 1 loses power: the run
# continues, to bit-identical results. As root; takes 15 minutes, and the first time some minutes more for Debian's
# packages, which are unpacked to $MODE_CACHE/two-machines (3 GB).
set -eu
build=$(cd "$1" && pwd) here=$(cd "$(dirname "$0")" && pwd)
home=${MODE_CACHE:-$HOME/.cache/mode}/two-machines
merges=${MODE_CLIP_MERGES:-${MODE_CACHE:-$HOME/.cache/mode}/models/bpe_simple_vocab_16e6.txt.gz}
missing=
for p in qemu-system-x86_64:qemu-system-x86 qemu-img:qemu-utils debootstrap:debootstrap ssh:openssh-client python3:python3; do
    command -v "${p%%:*}" >/dev/null || missing="$missing ${p##*:}"
done
if [ -n "$missing" ]; then
    echo "two_machines.sh: missing; as root run: apt-get install --no-install-recommends$missing" >&2
    exit 69
fi
[ "$(id -u)" = 0 ] || { echo "two_machines.sh: debootstrap needs root" >&2; exit 77; }
[ -e "$merges" ] || { echo "two_machines.sh: no merges file $merges: make models" >&2; exit 77; }

# ---- the disk image that both start from ----

make_disk() {
    root=$home/root
    rm -rf "$home"
    mkdir -p "$home"
    debootstrap --variant=minbase --include=linux-image-amd64,initramfs-tools,kmod,iproute2,nfs-common,nfs-kernel-server,rpcbind,redis-server,procps,netbase,openssh-server \
        bookworm "$root" >"$home/log" 2>&1
    cp "$here/../../deploy/install-deps.sh" "$root/tmp/"
    PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$root" sh -c 'sh /tmp/install-deps.sh run && apt-get clean' >>"$home/log" 2>&1
    ssh-keygen -q -t ed25519 -N '' -f "$home/key"
    ssh-keygen -A -f "$root" >>"$home/log" 2>&1
    mkdir -p "$root/root/.ssh" "$root/host" "$root/data" "$root/shared"
    chmod 700 "$root/root/.ssh"
    cp "$home/key.pub" "$root/root/.ssh/authorized_keys"
    printf '%s\n' 9p 9pnet_virtio virtio_net virtio_pci virtio_blk ext4 >>"$root/etc/initramfs-tools/modules"
    PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$root" update-initramfs -u >>"$home/log" 2>&1
    echo '/data *(rw,sync,no_subtree_check,no_root_squash,fsid=0,insecure)' >"$root/etc/exports"
    cat >"$root/sbin/machine" <<'END'
#!/bin/sh
# The machine: devices, network, its disk, ssh; of machine 1 the NFS server; of both its client.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
for d in /dev/shm /run /tmp; do mount -t tmpfs tmpfs $d; done
mount -o remount,rw /
mkdir -p /run/sshd /run/rpc_pipefs
number=$(sed -n 's/.*machine=\([0-9]*\).*/\1/p' /proc/cmdline)
hostname "machine$number"
modprobe -a virtio_net 9pnet_virtio 9p nfsd nfsv4
ip link set lo up
for i in /sys/class/net/*; do
    case $(cat "$i/address") in
    52:54:00:00:00:*) address=10.0.2.15/24 ;;
    52:54:00:00:01:*) address=10.9.0.$number/24 ;;
    *) continue ;;
    esac
    ip link set "${i##*/}" up
    ip addr add $address dev "${i##*/}"
done
mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=262144 host /host
if [ "$number" = 1 ]; then
    mount /dev/vdb /data
    mount -t nfsd nfsd /proc/fs/nfsd
    mount -t rpc_pipefs pipes /run/rpc_pipefs
    rpcbind -w
    exportfs -ra
    rpc.nfsd -N 3 -V 4.2 4
    rpc.mountd
fi
until mount -t nfs4 10.9.0.1:/ /shared; do sleep 1; done
/usr/sbin/sshd
echo "machine $number is up"
while :; do sleep 1000; done
END
    chmod +x "$root/sbin/machine"
    cp "$root"/boot/vmlinuz-* "$home/kernel"
    cp "$root"/boot/initrd.img-* "$home/initrd"
    truncate -s 3G "$home/disk.part"
    mke2fs -q -t ext4 -d "$root" "$home/disk.part"
    rm -rf "$root"
    mv "$home/disk.part" "$home/disk"
}
if [ ! -e "$home/disk" ]; then
    echo "Debian is unpacked for the machines"
    make_disk || { tail -n 5 "$home/log"; echo "two_machines.sh: that failed, see $home/log"; exit 69; } >&2
fi

# ---- the machines ----

work=$(mktemp -d /tmp/mode-machines-XXXXXX)
bye() {
    power_off 1
    power_off 2
    rm -rf "$work"
}
fail() {
    echo "two_machines.sh: $1" >&2
    on 1 'tail -n 20 /tmp/*.log' >&2 || :
    on 2 'tail -n 5 /tmp/*.log' >&2 || :
    exit 1
}
trap bye EXIT
trap 'exit 1' INT TERM
power_off() { # machine: a power loss
    [ -e "$work/pid$1" ] || return 0
    kill -9 "$(cat "$work/pid$1")" 2>/dev/null || :
    wait "$(cat "$work/pid$1")" 2>/dev/null || : # until then qemu holds its disk
}
port=$(shuf -n 1 -i 20000-29990)
power_on() { # machine; returns when it is up
    [ -e "$work/disk$1" ] || qemu-img create -q -f qcow2 -b "$home/disk" -F raw "$work/disk$1"
    qemu-system-x86_64 -accel tcg -cpu max -smp 2 -m 2500 -nographic -no-reboot -kernel "$home/kernel" -initrd "$home/initrd" \
        -append "console=ttyS0 root=/dev/vda ro init=/sbin/machine machine=$1 panic=1 quiet" \
        -drive "file=$work/disk$1,if=virtio,format=qcow2" -drive "file=$work/data$1,if=virtio,format=raw" \
        -netdev "user,id=out,hostfwd=tcp:127.0.0.1:$((port + $1))-:22" -device "virtio-net-pci,netdev=out,mac=52:54:00:00:00:0$1" \
        -netdev "socket,id=lan,mcast=230.0.0.1:$port,localaddr=127.0.0.1" -device "virtio-net-pci,netdev=lan,mac=52:54:00:00:01:0$1" \
        -virtfs "local,path=$work/host,mount_tag=host,security_model=none,readonly=on" >"$work/console$1" 2>&1 </dev/null &
    echo $! >"$work/pid$1"
    n=0
    until grep -q "machine $1 is up" "$work/console$1"; do
        n=$((n + 1))
        kill -0 "$(cat "$work/pid$1")" && [ $n -lt 300 ] || fail "machine $1 does not come up: $(tail -n 3 "$work/console$1")"
        sleep 1
    done
}
on() { # machine, command
    machine=$1
    shift
    ssh -q -i "$home/key" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=60 \
        -p $((port + machine)) root@127.0.0.1 "cd /tmp; export PATH=/host/bin:\$PATH MODE_THREADS=1; $*"
}

# ---- what they run ----

mkdir -p "$work/host/encoder"
cp -r "$build/bin" "$work/host/bin"
cp "$merges" "$work/host/merges.gz"
python3 - "$work/host/encoder" <<'END' # a small sentence encoder with random weights
import array, json, random, struct, sys
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + [chr(c) for c in range(33, 127)] + ["##" + chr(c) for c in range(33, 127)]
H, M = 32, 64
shapes = {"embeddings.word_embeddings.weight": [len(words), H], "embeddings.position_embeddings.weight": [64, H],
          "embeddings.token_type_embeddings.weight": [2, H]}
norms = ["embeddings.LayerNorm", "encoder.layer.0.attention.output.LayerNorm", "encoder.layer.0.output.LayerNorm"]
linear = {"attention.self.query": [H, H], "attention.self.key": [H, H], "attention.self.value": [H, H],
          "attention.output.dense": [H, H], "intermediate.dense": [M, H], "output.dense": [H, M]}
for n, s in linear.items():
    shapes["encoder.layer.0." + n + ".weight"], shapes["encoder.layer.0." + n + ".bias"] = s, s[:1]
for n in norms:
    shapes[n + ".weight"] = shapes[n + ".bias"] = [H]
random.seed(1)
head, data = {}, b""
for n, s in shapes.items():
    count = s[0] * (s[1] if len(s) > 1 else 1)
    scale = 1 if n.endswith("LayerNorm.weight") else 0.2
    a = array.array("f", [scale * (1 if scale == 1 else random.gauss(0, 1)) for _ in range(count)]).tobytes()
    head[n] = {"dtype": "F32", "shape": s, "data_offsets": [len(data), len(data) + len(a)]}
    data += a
text = json.dumps(head).encode()
text += b" " * (-len(text) % 8)
open(sys.argv[1] + "/model.safetensors", "wb").write(struct.pack("<Q", len(text)) + text + data)
json.dump({"model_type": "bert", "architectures": ["BertModel"], "vocab_size": len(words), "hidden_size": H, "num_hidden_layers": 1,
           "num_attention_heads": 2, "intermediate_size": M, "max_position_embeddings": 64, "type_vocab_size": 2,
           "hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 0}, open(sys.argv[1] + "/config.json", "w"))
open(sys.argv[1] + "/vocab.txt", "w").write("\n".join(words) + "\n")
json.dump({"do_lower_case": True, "tokenizer_class": "BertTokenizer"}, open(sys.argv[1] + "/tokenizer_config.json", "w"))
END
"$build/bin/mode-test-corpus" "$work/host/corpus" 120 40 >/dev/null
rm -rf "$work/host/corpus/eval/retrieval_shapes"
cat >"$work/host/run.yaml" <<'END'
name: test
seed: 3
data: {train: train}
captions: {text_keys: ["json:texts[]"]}
encoder: {dir: /shared/encoder, pooling: mean, max_tokens: 32}
cluster: {fine: 4, coarse: 2, sample_per_centre: 0}
model:
  embed_dim: 16
  vision_cfg: {image_size: 16, patch_size: 8, width: 16, layers: 1, head_width: 8}
  text_cfg: {context_length: 16, vocab_size: 49408, width: 16, heads: 2, layers: 1}
tokenizer: {merges: /shared/merges.gz}
train: {batch: 16, lr: 1e-3, warmup_steps: 2, seed_steps: 8, total_steps: 16, expert_steps: share, checkpoint_steps: 2}
evaluate: {tasks: eval}
ensemble: {router: share}
END

start_server() { # workspace; on machine 1
    on 1 "mkdir -p /data/redis; setsid redis-server --bind 127.0.0.1 --appendonly yes --dir /data/redis >/tmp/redis.log 2>&1 </dev/null &
        sleep 3; setsid mode-coordinator --workspace /shared/$1 --redis redis://127.0.0.1:6379 --worker-endpoint 'tcp://*:5600' \
        --admin-endpoint 'tcp://*:5601' --key-dir /data/keys/all --allow-list /data/keys/all/allow >/tmp/coordinator.log 2>&1 </dev/null &"
}
start_workers() { # workspace, machine, services
    on "$2" "for s in $3; do
        setsid mode-\$s --workspace /shared/$1 --coordinator tcp://10.9.0.1:5600 --key-dir /shared/keys/pool --key-name pool >/tmp/\$s.log 2>&1 </dev/null &
        done"
}
every="captions embed cluster assign train evaluate ensemble"
start() { # workspace, services of machine 1: all of it, and the run
    on 1 "cp -r /host/corpus /shared/$1; cp /host/run.yaml /shared/$1/; rm -rf /data/redis"
    start_server "$1"
    start_workers "$1" 2 "$every"
    start_workers "$1" 1 "$2"
    on 1 "setsid mode run /shared/$1/run.yaml --workspace /shared/$1 --coordinator-admin tcp://10.9.0.1:5601 --key-dir /data/keys/all \
        --key-name me --no-progress >/tmp/run.log 2>&1 </dev/null &"
}
until_there() { # machine, command, what
    n=0
    until on "$1" "$2" >/dev/null 2>&1; do
        n=$((n + 1))
        [ $n -lt 300 ] || fail "$3"
        sleep 2
    done
}
stop() {
    on 1 'pkill -9 mode; pkill -9 redis' || :
    on 2 'pkill -9 mode' || :
}
sums() { # workspace
    on 1 "cd /shared/$1; sha256sum report/result.csv experts/*/open_clip_model.safetensors"
}

for m in 1 2; do truncate -s 2G "$work/data$m"; done
mke2fs -q -t ext4 "$work/data1"
power_on 1
power_on 2
on 1 'cp -r /host/encoder /host/merges.gz /shared/; mkdir /data/keys; mode keys /data/keys/all --worker pool --out /data/keys/pool; mode keys /data/keys/all --admin me' >/dev/null

start calm "embed train"
until_there 1 'test -e /shared/calm/report/report.html' "the run does not come to its end"
missed=$(on 1 'grep -c " failed (store" /tmp/coordinator.log' || :)
[ "$missed" = 0 ] || fail "$missed results were not seen by the other machine"
code=0
on 2 'mode gc --workspace /shared/calm --yes' >"$work/gc" 2>&1 || code=$?
[ $code = 75 ] || fail "mode gc of machine 2, while machine 1 works: code $code: $(cat "$work/gc")"
stop
sums calm >"$work/calm"
cat "$work/calm"

on 2 'date -s "+25 hours"' >/dev/null
start storm embed
until_there 1 'ls /shared/storm/ckpt/*/*/*.manifest' "the seed has no checkpoint"
kill -STOP "$(cat "$work/pid2")"
echo "machine 2, whose clock is a day ahead, is frozen"
until_there 1 'grep -q "train worker, and none is connected" /tmp/coordinator.log' "the coordinator does not drop machine 2"
start_workers storm 1 train
until_there 1 'grep -q "train_step " /tmp/train.log' "machine 1 does not go on with the seed"
kill -CONT "$(cat "$work/pid2")"
until_there 1 'sed "1,/none is connected/d" /tmp/coordinator.log | grep -q "worker name=train@machine2"' "machine 2 does not come back"
power_off 2
echo "machine 2 lost power"
power_on 2
start_workers storm 2 "$every"
until_there 1 'test $(ls /shared/storm/ckpt | wc -l) -ge 2 || grep -q "train-experts  done" /tmp/run.log' "no expert is trained"
power_off 1
echo "machine 1 lost power, with the disk, Redis and the coordinator"
power_on 1
start_server storm
start_workers storm 1 "embed train"
until_there 1 'test -e /shared/storm/report/report.html' "the run does not go on"
stop
sums storm >"$work/storm"
cmp "$work/calm" "$work/storm" || fail "machines that lost their power changed bytes"
echo "two_machines.sh: each machine saw the other's files at once; after two power losses the results are the same bytes"
