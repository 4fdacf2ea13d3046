import jaxtyping
import pytest
import torch

with jaxtyping.install_import_hook("gm_envs_ipd", "beartype.beartype"):
    import gm_envs_ipd  # noqa: F401

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return request.param
