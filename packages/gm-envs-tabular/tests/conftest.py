import jaxtyping

with jaxtyping.install_import_hook("gm_envs_tabular", "beartype.beartype"):
    import gm_envs_tabular  # noqa: F401
