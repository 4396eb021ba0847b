package config

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// Schema returns the JSON Schema (draft 2020-12) of one file. It accepts what
// [Load] accepts, and refuses what Load refuses on the look of single values;
// how settings go together it cannot say. Wherever a scalar stands it accepts a
// string with ${, whose value it cannot know.
func Schema() []byte {
	s := schemaOf(root)
	s.Schema = "https://json-schema.org/draft/2020-12/schema"
	s.Title = "Seriatim configuration"
	s.Defs = properties{{"variable", &schema{
		Type:        "string",
		Pattern:     `\$\{`,
		Description: "A value from outside: ${VAR}, ${VAR:-default}, ${VAR:?message} or ${file:/path}.",
	}}}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(s); err != nil {
		panic("the schema cannot be written as JSON: " + err.Error())
	}
	return b.Bytes()
}

// A schema is the part of the vocabulary of JSON Schema that we need.
type schema struct {
	Schema      string `json:"$schema,omitempty"`
	Title       string `json:"title,omitempty"`
	Description string `json:"description,omitempty"`
	Ref         string `json:"$ref,omitempty"`
	Type        string `json:"type,omitempty"`
	Default     any    `json:"default,omitempty"`

	Enum    []string    `json:"enum,omitempty"`
	Pattern string      `json:"pattern,omitempty"`
	Min     json.Number `json:"minimum,omitempty"`
	Max     json.Number `json:"maximum,omitempty"`

	Items    *schema `json:"items,omitempty"`
	MinItems int     `json:"minItems,omitempty"`
	Unique   bool    `json:"uniqueItems,omitempty"`

	Properties properties `json:"properties,omitempty"`
	Patterns   properties `json:"patternProperties,omitempty"`
	Additional *bool      `json:"additionalProperties,omitempty"`
	Required   []string   `json:"required,omitempty"`

	OneOf []*schema  `json:"oneOf,omitempty"`
	AnyOf []*schema  `json:"anyOf,omitempty"`
	Defs  properties `json:"$defs,omitempty"`
}

type property struct {
	key   string
	value *schema
}

// properties keep their order, which editors show.
type properties []property

// MarshalJSON writes the properties as an object.
func (p properties) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, kv := range p {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Quote(kv.key) + ":")
		value, err := json.Marshal(kv.value)
		if err != nil {
			return nil, err
		}
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func schemaOf(f *field) *schema {
	s := &schema{}
	switch f.kind {
	case object:
		s.Type = "object"
		s.Additional = new(bool)
		for _, c := range f.fields {
			if c.unbuilt {
				continue
			}
			s.Properties = append(s.Properties, property{c.key, schemaOf(c)})
			if c.required {
				s.Required = append(s.Required, c.key)
			}
		}
		for _, key := range f.oneOf {
			if !f.child(key).unbuilt {
				s.OneOf = append(s.OneOf, &schema{Required: []string{key}})
			}
		}
	case list:
		s.Type = "array"
		s.Items = schemaOf(f.item)
		s.MinItems = f.minItems
		s.Unique = f.item.kind != object && !f.repeats
	case table:
		s.Type = "object"
		s.Patterns = properties{{f.form.String(), schemaOf(f.item)}}
		s.Additional = new(bool)
	default:
		s = scalarSchema(f)
	}
	s.Description = f.doc
	s.Default = defaultJSON(f)
	return s
}

// scalarSchema accepts the values of f, and whatever comes from outside.
func scalarSchema(f *field) *schema {
	s := &schema{Type: "string", Enum: f.enum}
	form := f.form
	switch f.kind {
	case integer:
		s.Type, s.Min, s.Max = "integer", json.Number(f.min), json.Number(f.max)
	case number:
		s.Type, s.Min, s.Max = "number", json.Number(f.min), json.Number(f.max)
	case boolean:
		s.Type = "boolean"
	case duration:
		form = durationForm
	case size:
		form = sizeForm
	case start:
		form = startForm
	case percent:
		form = percentForm
	case delay:
		form = delayForm
	}
	if f.word != "" {
		return &schema{AnyOf: []*schema{s, {Type: "string", Enum: []string{f.word}}, {Ref: "#/$defs/variable"}}}
	}
	if form != nil {
		s.Pattern = form.String()
	}
	if s.Type == "string" && s.Enum == nil && s.Pattern == "" {
		return s // strings with ${ among them
	}
	return &schema{AnyOf: []*schema{s, {Ref: "#/$defs/variable"}}}
}

// defaultJSON returns the default of f as a JSON value, or nil.
func defaultJSON(f *field) any {
	switch {
	case f.def == "":
		return nil
	case f.kind == list:
		return []string{f.def}
	case f.kind == integer || f.kind == number:
		return json.Number(f.def)
	case f.kind == boolean:
		return f.def == "true"
	default:
		return f.def
	}
}
