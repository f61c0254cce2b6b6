"""Hugging Face's Trainer with an optimizer of fastopt.torch, by its own arguments."""

import pytest

torch = pytest.importorskip("torch", reason="needs the extra `torch`")
pytestmark = [pytest.mark.ci, pytest.mark.filterwarnings("ignore")]  # warnings of theirs about themselves


@pytest.fixture
def train(tmp_path):
    """Return a function that trains a tiny language model with random weights, and returns it and the losses."""
    pytest.importorskip("accelerate", reason="needs accelerate, which the Trainer uses")
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    config = transformers.GPT2Config(vocab_size=17, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    texts = [{"input_ids": x, "labels": x} for x in (torch.arange(k, k + 16) % 17 for k in range(64))]

    def run(optimizer, folder, resume=None, **options):
        transformers.set_seed(0)
        model = transformers.GPT2LMHeadModel(config)
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path / folder),
            per_device_train_batch_size=8,
            max_steps=20,
            save_steps=10,
            logging_steps=1,
            learning_rate=1e-2,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            **options,
        )
        trainer = transformers.Trainer(model, arguments, train_dataset=texts, optimizer_cls_and_kwargs=optimizer)
        trainer.train(resume_from_checkpoint=None if resume is None else str(tmp_path / resume))
        losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
        inner = trainer.optimizer
        while hasattr(inner, "optimizer"):
            inner = inner.optimizer
        assert type(inner) is optimizer[0]
        return [p.detach() for p in model.parameters()], losses

    return run


def test_the_trainer(train):
    from fastopt.torch import AdamW

    keywords = {"lr": 1e-2, "weight_decay": 0.0}
    ours, losses = train((AdamW, keywords), "ours")
    theirs, others = train((torch.optim.AdamW, keywords), "theirs")
    assert losses[-1] < 0.7 * losses[0]
    assert losses == pytest.approx(others, rel=1e-2)
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-2, atol=1e-3)
    resumed, _ = train((AdamW, keywords), "resumed", resume="ours/checkpoint-10")
    assert all(torch.equal(p, q) for p, q in zip(resumed, ours, strict=True))


def test_fewer_bytes_and_clipping_of_ours(train):
    from fastopt.torch import AdamW

    keywords = {"lr": 1e-2, "state_dtype": "int8", "clip_norm": 1.0, "nonfinite": "skip"}
    _, losses = train((AdamW, keywords), "ours", max_grad_norm=0.0)
    assert losses[-1] < 0.7 * losses[0]
