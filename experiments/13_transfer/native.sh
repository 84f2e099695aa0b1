#!/usr/bin/env bash
# Prior and classifiers of B, by the configs of the demo, on the store that B encoded.
set -euo pipefail
for what in prior classifier; do
    lcg fit --config "configs/$what/avatars.yaml" --data.init_args.store runs/transfer/store \
        --config "experiments/13_transfer/$what.yaml"
done
