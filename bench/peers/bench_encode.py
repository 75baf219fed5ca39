"""`mode bench encode` against open_clip: the same pixels to unit features, fp32, inference mode, alternating.

    $(tests/golden/venv.sh) bench/peers/bench_encode.py build/bin/mode [--config ViT-B-32] [--images 128]
"""
import tempfile

import turns


def main():
    p = turns.arguments(__doc__)
    p.add_argument("--config", default="ViT-B-32")
    p.add_argument("--images", type=int, default=128)
    p.add_argument("--batch", type=int, default=64, help="batch size of the peer")
    p.add_argument("--peers", default="eager,channels_last,compiled,compiled+channels_last")
    a = p.parse_args()
    torch = turns.begin(a)
    import open_clip
    size = open_clip.get_model_config(a.config)["vision_cfg"]["image_size"]
    pixels = torch.randn(a.images, 3, size, size)

    def peer(how):
        model, x = open_clip.create_model(a.config).eval(), pixels
        if "channels_last" in how:
            model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
        encode = torch.compile(model.encode_image) if "compiled" in how else model.encode_image

        def run():
            with torch.inference_mode():
                for i in range(0, a.images, a.batch):
                    encode(x[i:i + a.batch], normalize=True)
        return run

    with tempfile.TemporaryDirectory() as tmp:
        pixels.numpy().tofile(tmp + "/pixels")
        turns.compare(f"encoding {a.images} pictures with {a.config}",
                      [a.mode, "bench", "encode", "--config", a.config, "--pixels", tmp + "/pixels"],
                      {f"open_clip, {how}, batches of {a.batch}": peer(how.split("+")) for how in a.peers.split(",")},
                      a.images, a.rounds, a.threads)


if __name__ == "__main__":
    main()
