"""A ClientApp with PyTorch: the whole network travels, in fp32, and is trained on random pictures for a few steps."""

import time
from typing import Final

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from shared.vision.weights import import_timm

_STEPS: Final = 4
_BATCH, _SIDE, _CLASSES = 32, 96, 8

app = ClientApp()


def network() -> torch.nn.Module:
    """Return the network of the default recipe, untrained."""
    model: torch.nn.Module = import_timm().create_model("tf_efficientnet_lite0", num_classes=_CLASSES)
    return model


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train on random pictures, and say how many seconds that took."""
    model = network()
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    begin = time.monotonic()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(_STEPS):
        logits = model(torch.rand(_BATCH, 3, _SIDE, _SIDE))
        loss = torch.nn.functional.cross_entropy(logits, torch.randint(_CLASSES, (_BATCH,)))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        optimiser.step()
    metrics = MetricRecord({"num-examples": _BATCH, "seconds": time.monotonic() - begin})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate on random pictures."""
    model = network()
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    with torch.inference_mode():
        right = model.eval()(torch.rand(_BATCH, 3, _SIDE, _SIDE)).argmax(1) == 0
    metrics = MetricRecord({"num-examples": _BATCH, "accuracy": float(right.float().mean())})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
