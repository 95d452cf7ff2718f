"""What several tasks share: symbols, haystacks, answers, chains, notes, classes."""
