"""Frameworks take what `attach` gives as one of torch's own; each test runs where its framework is installed."""

from __future__ import annotations

import pytest
import torch

from gradwise.schedules import attach, cosine, reduce_on_plateau

pytestmark = pytest.mark.filterwarnings("ignore")
BATCHES = 4


def loader() -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(torch.randn(2 * BATCHES, 3), batch_size=2)


def test_accelerate(tmp_path) -> None:
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model, optimizer, data, scheduler = accelerator.prepare(model, optimizer, loader(), attach(optimizer, cosine(10)))
    for x in data:
        accelerator.backward(model(x).square().mean())
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    accelerator.save_state(tmp_path)
    scheduler.step()
    accelerator.load_state(tmp_path)
    assert scheduler.get_last_lr() == [cosine(10)(BATCHES)]


@pytest.mark.parametrize("plateau", [False, True])
def test_lightning(plateau: bool) -> None:
    lightning = pytest.importorskip("pytorch_lightning")
    rule = reduce_on_plateau(0.5, patience=1, threshold=100.0) if plateau else cosine(10)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.used = torch.nn.Linear(3, 1), []

        def training_step(self, batch, _):
            self.used.append(self.optimizers().param_groups[0]["lr"])
            loss = self.layer(batch).square().mean()
            self.log("loss", loss)
            return loss

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
            scheduler = {"scheduler": attach(optimizer, rule), "interval": "epoch" if plateau else "step"}
            return {"optimizer": optimizer, "lr_scheduler": scheduler | {"monitor": "loss"}}

    module = Module()
    lightning.Trainer(
        max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu"
    ).fit(module, loader())
    expected = [1.0] * 2 * BATCHES + [0.5] * BATCHES if plateau else [cosine(10)(t) for t in range(3 * BATCHES)]
    assert module.used == expected


@pytest.mark.parametrize("plateau", [False, True])
def test_transformers(plateau: bool, tmp_path) -> None:
    transformers = pytest.importorskip("transformers")

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 1)

        def forward(self, x, labels):
            out = self.layer(x).squeeze(-1)
            return {"loss": (out - labels).square().mean(), "logits": out}

    data = [{"x": torch.randn(3), "labels": torch.tensor(1.0)} for _ in range(2 * BATCHES)]
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    rule = reduce_on_plateau(0.5, patience=1, threshold=100.0) if plateau else cosine(10)
    scheduler = attach(optimizer, rule)
    arguments = transformers.TrainingArguments(
        tmp_path, num_train_epochs=2, per_device_train_batch_size=2, use_cpu=True, report_to=[],
        save_strategy="epoch", eval_strategy="epoch", disable_tqdm=True, metric_for_best_model="eval_loss",
    )  # fmt: skip
    transformers.Trainer(
        model, arguments, train_dataset=data, eval_dataset=data, optimizers=(optimizer, scheduler)
    ).train()
    if plateau:
        assert scheduler.state_dict()["plateaus"][0]["cuts"] == 1
    else:
        assert scheduler.state_dict() == {"last_epoch": 2 * BATCHES}
