"""fstune: paired hyperparameter search for Future-Seed on RWKV-7.

The service: specs, arms, pairs, searches, records. The model lives in `model`, the tasks in `tasks`.
"""
