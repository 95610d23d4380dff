// Decides what it is asked with cedar-go, an implementation of Cedar that shares no code with the one Strongroom uses. Lines of JSON come in on
// standard input: first the entities of all actions, then policy sets with questions; a line of answers goes out for each set. The
// test `another_implementation_decides_alike` in policy/src/tests/cedar_go.rs is the other side.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sort"

	cedar "github.com/cedar-policy/cedar-go"
)

// A set of policies, and what is asked of it.
type set struct {
	Policies []struct {
		ID   string `json:"id"`
		Text string `json:"text"`
	} `json:"policies"`
	Questions []struct {
		Entities cedar.EntityMap `json:"entities"`
		Request  cedar.Request   `json:"request"`
	} `json:"questions"`
}

// What is said to one question. Failed: some policy could not be evaluated.
type answer struct {
	Allow   bool     `json:"allow"`
	Reasons []string `json:"reasons"`
	Failed  bool     `json:"failed"`
}

func decide(line []byte, actions cedar.EntityMap) ([]answer, error) {
	var asked set
	if err := json.Unmarshal(line, &asked); err != nil {
		return nil, err
	}
	policies := cedar.NewPolicySet()
	for _, text := range asked.Policies {
		var policy cedar.Policy
		if err := policy.UnmarshalCedar([]byte(text.Text)); err != nil {
			return nil, fmt.Errorf("%s: %w in %s", text.ID, err, text.Text)
		}
		policies.Add(cedar.PolicyID(text.ID), &policy)
	}
	answers := make([]answer, 0, len(asked.Questions))
	for _, question := range asked.Questions {
		for uid, action := range actions {
			question.Entities[uid] = action
		}
		decision, diagnostic := cedar.Authorize(policies, question.Entities, question.Request)
		said := answer{Allow: decision == cedar.Allow, Reasons: []string{}, Failed: len(diagnostic.Errors) > 0}
		for _, reason := range diagnostic.Reasons {
			said.Reasons = append(said.Reasons, string(reason.PolicyID))
		}
		sort.Strings(said.Reasons)
		answers = append(answers, said)
	}
	return answers, nil
}

func run() error {
	in := bufio.NewReader(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	first, err := in.ReadBytes('\n')
	if err != nil {
		return err
	}
	var actions cedar.EntityMap
	if err := json.Unmarshal(first, &actions); err != nil {
		return err
	}
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			// The other side has asked everything.
			return nil
		}
		answers, err := decide(line, actions)
		if err != nil {
			return err
		}
		if err := out.Encode(answers); err != nil {
			return err
		}
	}
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
