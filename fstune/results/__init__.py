"""What was compared and what it says: records, pairs, deltas, verdicts, ranks.

How results are shown is in `report`; who is compared next is in `search`.
"""
