"""fstune: paired hyperparameter search for Future-Seed on RWKV-7.

The service: specs, arms, pairs, searches, records. The model is in `model`, tasks are in `tasks`.
"""
